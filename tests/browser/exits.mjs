// An admin sends the Internet traffic of a home out through other routers, sees them fail, and sees a change rolled back.

import { SOON, closeDialog, ensure, eventually, go, inDialog, lab, look, refused, say, tell } from "./kit.mjs";

/** From an admin's click to packets that go another way, a handshake included. */
const EFFECT = 15_000;
/** An exit that died is noticed, and what it was used for goes elsewhere. */
const FAILOVER = 20_000;
/** Seconds after which a router without its control link goes back. */
const CONFIRM = 5;

tell(async ({ page, url }) => {
  await login(page, url);
  await makeExits(page);
  await sendTrafficOut(page);
  await views(page);
  await exitsDie(page);
  await inUse(page);
  await rolledBack(page);
  await stop(page);
});

async function login(page, url) {
  await page.goto(url);
  await page.getByLabel("Token").fill(await lab("token"));
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("navigation", { name: "Network" }).waitFor();
}

const node = (page, name) => go(page, `#/n/home/nodes/${name}`, name);

/** What its owner forbids is not to be had here; what its uplink lacks is said. */
async function makeExits(page) {
  await node(page, "home");
  await page.getByText("No other router of this network is an exit yet").waitFor();
  await node(page, "barn");
  await page.getByRole("switch", { name: "Be an exit" }).check();
  await page.getByTestId("exit-forbidden").getByText("The router's owner forbids it: allow_exit").waitFor();
  await look(page, "exit-forbidden");
  await lab("allow_exit", { router: "barn" });
  await nameResolver(page);
  await page.getByText("IPv4 only: the uplink has no IPv6").waitFor({ timeout: EFFECT });
  await lab("allow_exit", { router: "farm" });
  await node(page, "farm");
  await page.getByRole("switch", { name: "Be an exit" }).check();
  await page.getByText("IPv4 and IPv6", { exact: true }).waitFor({ timeout: EFFECT });
  await nameResolver(page);
  await look(page, "exit");
  say("two exits");
}

async function nameResolver(page) {
  const resolver = await lab("resolver");
  await page.getByRole("button", { name: "Exit settings" }).click();
  await inDialog(page).getByLabel("Resolvers").fill(resolver);
  await closeDialog(page, "Save");
  await page.getByText(resolver, { exact: true }).waitFor({ timeout: EFFECT });
}

async function sendTrafficOut(page) {
  const lan = await lab("lan", { router: "home" });
  await node(page, "home");
  await page.getByRole("button", { name: "Send traffic through an exit" }).click();
  const form = inDialog(page);
  await form.getByLabel("Name").fill("pcs");
  for (const box of await form.getByRole("checkbox", { checked: true }).and(form.locator("[name=of]")).all()) await box.uncheck();
  const verdict = form.getByTestId("scope-verdict");
  refused(/\/scopes\/pcs\?dry_run=true$/, "4");
  await form.getByLabel("Others").pressSequentially("10.0.0.0/40");
  await verdict.filter({ hasText: "names no traffic" }).waitFor();
  ensure(/bad/.test(await verdict.getAttribute("class")), "traffic that is none is not marked");
  await form.getByLabel("Others").fill("");
  await form.getByRole("checkbox", { name: lan, exact: true }).check();
  await form.getByTestId("exit-0").selectOption("farm");
  await form.getByTestId("exit-1").selectOption("barn");
  await form.getByTestId("kill-switch").uncheck();
  await form.getByText("its provider sees it").first().waitFor();
  await form.getByTestId("kill-switch").check();
  await form.getByText("this traffic is dropped").waitFor();
  await verdict.filter({ hasText: /\w/ }).waitFor();
  await eventually("the coordinator would take it", SOON, async () => !/bad|soft/.test(await verdict.getAttribute("class")));
  ensure(!/does not apply this/.test(await verdict.innerText()), "what is only tried is said to be ignored by the router");
  await look(page, "scope-new");
  await closeDialog(page, "Send it");
  const row = page.getByTestId("scope-pcs");
  await row.getByText("farm, then barn").waitFor();
  await row.getByTestId("outcome").filter({ hasText: /^through farm/ }).waitFor({ timeout: EFFECT });
  await lab("seen_as", { router: "farm", within_ms: EFFECT });
  say("the home goes out through the farm");
}

async function views(page) {
  await look(page, "node-traffic");
  await go(page, "#/n/home/exits", "Exits");
  await page.getByTestId("exit-farm").getByText("home").waitFor();
  await page.getByTestId("exit-barn").getByText("IPv4 only: the uplink has no IPv6").waitFor();
  await look(page, "exits");
  await go(page, "#/n/home", "home");
  await page.getByTestId("flow-home-farm").waitFor({ state: "attached" });
  await look(page, "overview-exits");
}

/** The second takes over; without both nothing passes, and it is said why. */
async function exitsDie(page) {
  await node(page, "home");
  const outcome = page.getByTestId("scope-pcs").getByTestId("outcome");
  await lab("silence", { router: "farm" });
  await lab("seen_as", { router: "barn", within_ms: FAILOVER });
  await outcome.filter({ hasText: /^through barn/ }).waitFor();
  say("the farm died, the barn took over");
  await lab("silence", { router: "barn" });
  await lab("seen_as", { within_ms: FAILOVER });
  await outcome.filter({ hasText: "blocked: no exit answers" }).waitFor();
  await look(page, "exits-dead");
  await lab("end", { host: "barn" });
  await outcome.filter({ hasText: /^through barn/ }).waitFor({ timeout: FAILOVER + 20_000 });
  say("both died, nothing passed, one came back");
}

/** An exit in use is not switched off by mistake. */
async function inUse(page) {
  await node(page, "barn");
  refused(/\/nodes\/barn\/exit$/, "409");
  const isExit = page.getByRole("switch", { name: "Be an exit" });
  await isExit.click();
  await inDialog(page).getByText("pcs of home").waitFor();
  await look(page, "exit-in-use");
  await closeDialog(page, "Cancel");
  ensure(await isExit.isChecked(), "an exit that is in use was switched off without a yes");
  await node(page, "home");
}

/** The router hears of a change and is not heard: for all it knows the change did that. */
async function rolledBack(page) {
  const patient = inDialog(page).getByLabel("Seconds to confirm a change");
  await page.getByRole("button", { name: "Edit", exact: true }).click();
  await patient.fill(String(CONFIRM));
  await closeDialog(page, "Save");
  await lab("wait_until_told", { router: "home", within_ms: EFFECT });
  await lab("mute", { router: "home" });
  await page.getByRole("button", { name: "Edit pcs" }).click();
  await inDialog(page).getByTestId("exit-0").selectOption("*");
  await closeDialog(page, "Save");
  await lab("wait_until_back", { router: "home", within_ms: 3 * CONFIRM * 1000 });
  await lab("end", { host: "coordinator" });
  const notice = page.getByTestId("rolled-back");
  await notice.getByText("rolled back the last change").waitFor({ timeout: 60_000 });
  await look(page, "rolled-back");
  await notice.getByRole("button", { name: "Try again" }).click();
  await notice.waitFor({ state: "detached", timeout: EFFECT });
  await page.getByTestId("scope-pcs").filter({ hasText: "the nearest" }).waitFor();
  say("a change was rolled back, and retried");
}

/** From now on the home goes out over its own uplink. */
async function stop(page) {
  await page.getByRole("button", { name: "Delete pcs" }).click();
  await inDialog(page).getByText("own uplink").waitFor();
  await closeDialog(page, "Stop it");
  await page.getByText("All of it goes out over this router's own uplink.").waitFor();
  await lab("seen_as", { router: "home", within_ms: EFFECT });
}
