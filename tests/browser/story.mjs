// An admin's day on the page, with real routers and a real phone behind it.

import { readFileSync } from "node:fs";
import { SOON, closeDialog, decode, ensure, eventually, go, inDialog, lab, look, refused, say, tell } from "./kit.mjs";

/** From an admin's click to its effect. */
const EFFECT = 2000;
/** For a router to join and shake hands, and a phone to find its way. */
const JOINED = 30_000;
const IMAGE = "<img src=x onerror=alert(1)>";

tell(async ({ page, url }) => {
  await login(page, url);
  await makeNetwork(page);
  await joinRouters(page);
  await serveLan(page);
  await letClientsIn(page);
  await addByKeyboard(page);
  const file = await addPhone(page);
  await phoneComesAndGoes(page, file);
  await foreignNames(page);
  await rules(page);
  await readLog(page);
  await views(page);
  await leave(page, url);
});

async function login(page, url) {
  refused(/\/v1\/me$/, 401);
  const answer = await page.goto(url);
  const policy = answer.headers()["content-security-policy"];
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) {
    ensure(policy?.split(";").some((one) => one.trim() === part), `the page's policy lacks ${part}: ${policy}`);
  }
  ensure(!/unsafe|\*|http/.test(policy), `the page's policy is not strict: ${policy}`);
  await page.getByLabel("Token").waitFor();
  await look(page, "login");
  refused(/\/v1\/login$/, 401);
  await page.getByLabel("Token").fill("not a token");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").filter({ hasText: /token/i }).waitFor();
  await page.getByLabel("Token").fill(await lab("token"));
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("navigation", { name: "Network" }).waitFor();
  const [cookie] = await page.context().cookies();
  ensure(cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict", `the cookie: ${JSON.stringify({ ...cookie, value: "" })}`);
  ensure((await page.evaluate(() => document.cookie)) === "", "scripts can read a cookie");
  say("logged in");
}

/** One is there already; another is made. */
async function makeNetwork(page) {
  await go(page, "#/", "Networks");
  await page.getByRole("button", { name: "New network" }).click();
  await look(page, "network-new");
  await inDialog(page).getByLabel("Name").fill("shed");
  await page.getByRole("button", { name: "Create the network" }).click();
  await page.getByRole("heading", { level: 1, name: "shed" }).waitFor();
  await look(page, "network-empty");
  await go(page, "#/", "Networks");
  await page.getByRole("link", { name: /^home/ }).waitFor();
  await look(page, "networks");
}

/** Nothing is reloaded: the code's dialog shows who joins, and then who is online. */
async function joinRouters(page) {
  await go(page, "#/n/home/codes", "Join codes");
  await page.getByRole("button", { name: "New join code" }).click();
  await inDialog(page).getByLabel("For how many routers").fill("2");
  await look(page, "code-new");
  await page.getByRole("button", { name: "Create the code" }).click();
  const command = (await page.getByTestId("join-command").innerText()).trim();
  await page.getByRole("button", { name: "Copy command" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  ensure(copied === command && /^gatewrt join \S+$/.test(command), `copied: ${copied}`);
  await page.evaluate(() => (window.sameSinceLogin = true));
  for (const router of ["office", "home"]) {
    await lab("join", { router, code: command.split(" ")[2], board: router === "home" ? IMAGE : undefined });
    const line = page.getByTestId("joined").locator("p").filter({ has: page.getByRole("link", { name: router, exact: true }) });
    await line.getByText("online", { exact: true }).waitFor({ timeout: JOINED });
    say(`${router} is online`);
  }
  await look(page, "code-joined");
  ensure(await page.evaluate(() => window.sameSinceLogin), "the page was loaded anew");
  await closeDialog(page, "Done");
}

async function serveLan(page) {
  for (const router of ["office", "home"]) {
    await go(page, `#/n/home/nodes/${router}`, router);
    const [prefix, other] = await lab("lans", { router });
    if (router === "office") await refuse(page);
    for (const one of [prefix, other]) {
      await page.getByTestId("egress-prefix").fill(one);
      await page.getByTestId("egress-verdict").getByText(`${one} can be served`).waitFor();
      await page.getByRole("button", { name: "Serve it" }).click();
      await page.getByTestId(`egress-${one}`).waitFor();
    }
  }
  await lab("wait_for_lans");
  say("the LANs reach each other");
}

/** While typing, before anything is sent. */
async function refuse(page) {
  refused(/\/egress\?dry_run=true$/, "4");
  const verdict = page.getByTestId("egress-verdict");
  await page.getByTestId("egress-prefix").pressSequentially("127.0.0.0/8");
  await verdict.filter({ hasText: /127\.0\.0\.0/ }).waitFor();
  ensure(/bad/.test(await verdict.getAttribute("class")), "a refused prefix is not marked");
  ensure(/\w+ \w+ \w+/.test(await verdict.innerText()), "a refused prefix has no reason");
  await look(page, "egress-refused");
}

async function letClientsIn(page) {
  await go(page, "#/n/home/clients", "Clients");
  await look(page, "clients-none");
  await go(page, "#/n/home/nodes/office", "office");
  await page.getByRole("switch", { name: "Let clients in" }).check();
  await page.getByText("Their addresses").waitFor();
}

/** Adds a client without a mouse, and looks at where the focus is all the way. */
async function addByKeyboard(page) {
  await go(page, "#/n/home/clients", "Clients");
  await tabTo(page, "Add a client");
  await page.keyboard.press("Enter");
  await inDialog(page).waitFor();
  await page.keyboard.type("laptop");
  await look(page, "client-new");
  await tabTo(page, "Add it");
  await page.keyboard.press("Enter");
  await page.getByTestId("issued").waitFor();
  await tabTo(page, "Done");
  await page.keyboard.press("Space");
  await inDialog(page).waitFor({ state: "detached" });
  await page.getByTestId("client-laptop").waitFor();
  say("added a client by keyboard");
}

async function tabTo(page, name) {
  for (let i = 0; i < 60; i += 1) {
    const [text, isVisible] = await page.evaluate(() => {
      const at = document.activeElement;
      const { outlineStyle, boxShadow } = getComputedStyle(at);
      return [at.getAttribute("aria-label") ?? at.textContent.trim(), outlineStyle !== "none" || boxShadow !== "none"];
    });
    if (text === name) return ensure(isVisible, `one does not see that ${name} has the focus`);
    await page.keyboard.press("Tab");
  }
  throw new Error(`the Tab key does not lead to ${name}`);
}

/** The picture, the file to be downloaded and the text are one. */
async function addPhone(page) {
  await page.getByRole("button", { name: "Add a client" }).click();
  await inDialog(page).getByLabel("Name").fill("phone");
  await page.getByRole("button", { name: "Add it" }).click();
  await page.getByTestId("qr").waitFor();
  await look(page, "client-issued");
  const seen = await decode(page.getByTestId("qr"), "qr");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByTestId("download").click()]);
  ensure(download.suggestedFilename() === "phone.conf", `the file is called ${download.suggestedFilename()}`);
  const file = readFileSync(await download.path(), "utf8");
  ensure(/^PrivateKey = \S{44}$/m.test(file), "the file has no private key");
  ensure(seen === file, `the picture is not the file: ${seen.length} and ${file.length} bytes`);
  await page.getByText("The file as text").click();
  ensure((await page.getByTestId("config").textContent()) === file, "the text is not the file");
  await closeDialog(page, "Done");
  ensure(!(await page.content()).includes(/PrivateKey = (\S+)/.exec(file)[1]), "the private key is still in the page");
  say("the QR code is the file");
  return file;
}

/** It comes in with the file alone, is seen, cut off by the switch during a download, and let in again. */
async function phoneComesAndGoes(page, file) {
  const row = page.getByTestId("client-phone");
  await lab("phone_up", { file });
  await row.getByText("connected", { exact: true }).waitFor({ timeout: JOINED });
  await look(page, "clients");
  await lab("download_start");
  await lab("mark");
  await row.getByRole("switch").uncheck();
  const { cut_ms: cut } = await lab("download_cut", { within_ms: EFFECT });
  say(`the download was cut ${cut} ms after the click`);
  await row.getByText("switched off").waitFor();
  await row.getByRole("switch").check();
  await lab("phone_to_nas", { passes: true, within_ms: JOINED });
  await row.getByText("connected", { exact: true }).waitFor({ timeout: JOINED });
  say("the phone is in again");
}

/** What others named is text. */
async function foreignNames(page) {
  await go(page, "#/n/home/nodes/office", "office");
  await page.getByRole("button", { name: "Edit", exact: true }).click();
  await inDialog(page).getByLabel("Label").fill(IMAGE);
  await inDialog(page).getByLabel("Tags").fill("servers");
  await look(page, "node-edit");
  await closeDialog(page, "Save");
  await page.locator("main").getByText(IMAGE).first().waitFor();
  await look(page, "node");
  await go(page, "#/n/home/nodes/home", "home");
  await page.locator("main").getByText(IMAGE).first().waitFor();
  for (const part of ["", "/nodes", "/clients", "/exits", "/access"]) {
    await go(page, `#/n/home${part}`, { "": "home", "/nodes": "Nodes", "/clients": "Clients", "/exits": "Exits", "/access": "Access" }[part]);
    ensure((await page.locator("img[src=x]").count()) === 0, `a name became a picture at ${part}`);
  }
  await go(page, "#/n/home/nodes", "Nodes");
  ensure((await page.locator("main").getByText(IMAGE).count()) >= 2, "the label or the board is not shown as text");
  say("foreign names are text");
}

/** Asked, forbidden, asked again; and the phone feels it. */
async function rules(page) {
  const nas = await lab("nas");
  await go(page, "#/n/home/access", "Access");
  const ask = async () => {
    await page.getByTestId("check-from").fill("client:phone");
    await page.getByTestId("check-to").fill(nas);
    await page.getByRole("button", { name: "Check", exact: true }).click();
  };
  const answer = page.getByTestId("check-answer");
  await ask();
  await answer.getByText("yes", { exact: true }).waitFor();
  await lab("phone_to_nas", { passes: true, within_ms: JOINED });
  await page.getByRole("button", { name: "Add a rule" }).click();
  await inDialog(page).getByLabel("Refuse").check();
  await inDialog(page).getByLabel("From").fill("client:phone");
  await inDialog(page).getByLabel("To", { exact: true }).fill("site:home");
  await look(page, "rule-new");
  await closeDialog(page, "Add it");
  await lab("phone_to_nas", { passes: false, within_ms: EFFECT });
  await ask();
  await answer.getByText("no", { exact: true }).waitFor();
  await look(page, "access");
  await page.getByRole("switch", { name: /^Rule on/ }).uncheck();
  await lab("phone_to_nas", { passes: true, within_ms: EFFECT });
  say("a rule forbids, and does not");
}

async function readLog(page) {
  await go(page, "#/n/home/log", "Log");
  const log = await page.locator("main").innerText();
  for (const word of ["office", "phone", "laptop", "192.168.10.0/24"]) ensure(log.includes(word), `the log does not speak of ${word}:\n${log}`);
  await look(page, "log");
}

async function views(page) {
  for (const [name, hash, heading] of [["overview", "#/n/home", "home"], ["nodes", "#/n/home/nodes", "Nodes"], ["codes", "#/n/home/codes", "Join codes"],
    ["client", "#/n/home/clients/phone", "phone"], ["tokens", "#/tokens", "Tokens"]]) {
    await go(page, hash, heading);
    await look(page, name);
  }
}

/** The cookie is worth nothing afterwards. */
async function leave(page, url) {
  const cookies = await page.context().cookies();
  await page.getByTestId("account").click();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Token").waitFor();
  await page.context().addCookies(cookies);
  refused(/\/v1\/networks$/, 401);
  const status = await page.evaluate(async (from) => (await fetch(`${from}/v1/networks`)).status, url);
  ensure(status === 401, `after logging out, the old cookie is answered ${status}`);
  await eventually("the page is at its login", SOON, () => page.getByLabel("Token").isVisible());
}
