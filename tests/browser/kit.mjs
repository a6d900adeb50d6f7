// What a story in the browser needs: Chromium that trusts the coordinator, guards over all that the page does, a look at
// a view, and orders to the lab. It ends with the test that started it.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const packages = createRequire(join(root, "target/tools/browser/package.json"));
const { chromium } = packages("playwright-core");
const axeSource = readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");
const screenshots = join(root, "target/screenshots");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const DESK = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };
/** For all that the page draws after a click; the lab's own deadlines are longer and said where they are. */
export const SOON = 20_000;

/** What a story was caught at. All of it is told at its end. */
const faults = [];
export const fault = (text) => faults.push(text);

/** Ends the story with the first wrong thing. */
export function ensure(condition, text) {
  if (!condition) throw new Error(text);
}

const started = Date.now();
export const say = (text) => console.error(`[${((Date.now() - started) / 1000).toFixed(1).padStart(6)} s] ${text}`);

const answers = [];
const input = createInterface({ input: process.stdin });
input.on("line", (line) => answers.shift()?.(JSON.parse(line)));
// The test is over, so is this.
input.on("close", () => process.exit(1));

/** Has the test do something in the lab: one line out, one line in. */
export async function lab(order, about = {}) {
  const answered = new Promise((done) => answers.push(done));
  console.log(JSON.stringify({ order, ...about }));
  const { value, error } = await answered;
  if (error) throw new Error(`${order}: ${error}`);
  return value;
}

/** Polls until `probe` answers something; the last error is told. */
export async function eventually(what, ms, probe) {
  const end = Date.now() + ms;
  for (;;) {
    let last;
    try {
      const found = await probe();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}${last ? `: ${last.message}` : ""}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Runs a story with a page at `url`; fails when it does or when a guard was touched. */
export async function tell(story) {
  const { url, ca } = await lab("world");
  const home = mkdtempSync(join(tmpdir(), "gatewrt-browser-"));
  let browser;
  try {
    trust(home, ca);
    browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS, env: { ...process.env, HOME: home } });
    const context = await browser.newContext({ viewport: DESK, deviceScaleFactor: 2, acceptDownloads: true, locale: "en-GB", timezoneId: "UTC", reducedMotion: "reduce" });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
    context.setDefaultTimeout(SOON);
    const page = await context.newPage();
    guard(context, page, url);
    try {
      await story({ page, url, context });
    } catch (error) {
      await page.screenshot({ path: shot("failed") }).catch(() => {});
      say(`the page shows (${page.url()}):\n${await page.locator("body").innerText().catch(() => "nothing")}`);
      throw error;
    }
  } catch (error) {
    fault(error.stack);
  } finally {
    await browser?.close();
    rmSync(home, { recursive: true, force: true });
  }
  faults.forEach((text) => console.error(`FAULT: ${text}`));
  process.exit(faults.length ? 1 : 0);
}

/** As an admin would: the coordinator's CA is taken into the browser's own store, and nothing else is let pass. */
function trust(home, ca) {
  const store = join(home, ".pki/nssdb");
  mkdirSync(store, { recursive: true });
  writeFileSync(join(home, "ca.crt"), ca);
  execFileSync("certutil", ["-N", "-d", `sql:${store}`, "--empty-password"]);
  execFileSync("certutil", ["-A", "-d", `sql:${store}`, "-t", "C,,", "-n", "coordinator", "-i", join(home, "ca.crt")]);
}

/** Answers of the API that refuse on purpose; Chromium writes each to the console. */
const refusals = [];
export const refused = (pattern, status) => refusals.push({ pattern, status });

function guard(context, page, url) {
  const isOwn = (address) => new URL(address).origin === url || /^(data|blob):/.test(address);
  context.on("request", (request) => isOwn(request.url()) || fault(`a request to another origin: ${request.url()}`));
  page.on("websocket", (socket) => fault(`a web socket: ${socket.url()}`));
  page.on("pageerror", (error) => fault(`an error of the page: ${error.stack}`));
  page.on("dialog", (dialog) => {
    fault(`the page opened a dialog of the browser: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    const where = message.location().url;
    const isAsked = refusals.some(({ pattern, status }) => pattern.test(where) && message.text().includes(`status of ${status}`));
    if (!isAsked) fault(`${message.type()} on the console: ${message.text()} (${where})`);
  });
}

export async function go(page, hash, heading) {
  await page.evaluate((to) => (location.hash = to), hash);
  await page.getByRole("heading", { level: 1, name: heading, exact: true }).waitFor();
  await page.locator("main[aria-busy=false]").waitFor();
}

export const inDialog = (page) => page.getByRole("dialog");
export async function closeDialog(page, name) {
  await inDialog(page).getByRole("button", { name, exact: true }).click();
  await inDialog(page).waitFor({ state: "detached" });
  // A dialog that is closed is no dialog to people any more, and leaves the page a moment later.
  await page.locator("dialog").waitFor({ state: "detached" });
}

const shot = (name) => {
  mkdirSync(screenshots, { recursive: true });
  return join(screenshots, `${name}.png`);
};

/** In the page: drawn, and done with all that moves and ends. */
async function settled() {
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const ending = document.getAnimations().filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime));
  await Promise.all(ending.map((one) => one.finished.catch(() => {})));
}

/** A view is looked at: by axe in light, dark and on a phone, and in pictures for a person. */
export async function look(page, name) {
  await page.evaluate(() => document.fonts.ready);
  for (const [kind, size, colorScheme] of [["light", DESK, "light"], ["dark", DESK, "dark"], ["phone", PHONE, "light"]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(size);
    await page.evaluate(settled);
    // What a dialog covers is the screen, not the whole page.
    await page.screenshot({ path: shot(`${name}-${kind}`), fullPage: (await page.getByRole("dialog").count()) === 0 });
    await inspect(page, `${name}, ${kind}`);
    const [wide, has] = await page.evaluate(() => [document.scrollingElement.scrollWidth, window.innerWidth]);
    if (wide > has) fault(`${name}, ${kind}: ${wide} px wide on a screen of ${has}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(DESK);
  say(`looked at ${name}`);
}

/** By the debugger, which the page's own policy does not bind. */
async function inspect(page, where) {
  const session = await page.context().newCDPSession(page);
  const run = async (expression) => {
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`axe: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  };
  await run(`window.axe || (() => {${axeSource}\n})(); 0`);
  const found = await run(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
    violations.map(({ impact, id, help, nodes }) => ({ impact, id, help, nodes: nodes.slice(0, 3).map(({ target, failureSummary }) => target.join(" ") + ": " + failureSummary) })))`);
  for (const { impact, id, help, nodes } of found) {
    const text = `axe, ${where}: ${impact}: ${id}: ${help}\n    ${nodes.join("\n    ").replaceAll("\n\n", "\n")}`;
    ["serious", "critical"].includes(impact) ? fault(text) : say(text);
  }
  await session.detach();
}

/** What an independent reader sees in a picture of a part of the page. */
export async function decode(locator, name) {
  const path = shot(name);
  await locator.screenshot({ path });
  const text = execFileSync("zbarimg", ["--quiet", "--raw", "--oneshot", "-Sbinary", path], { encoding: "utf8" });
  return text;
}
