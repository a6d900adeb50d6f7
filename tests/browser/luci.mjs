// The owner of a router sees each state of it on LuCI's pages, then joins a network there, takes an exit, says what the
// router may do, and leaves. The pages are the package's own, on the stand-in for LuCI's runtime of `tests/luci`; a second
// part asks a real router.

import { readFileSync } from "node:fs";
import { ensure, eventually, inDialog, lab, look, say, tell } from "./kit.mjs";
import { serve, set } from "./luci-server.mjs";

/** From a click to what the coordinator has to know and say, a handshake included. */
const EFFECT = 20_000;

const state = (name) => JSON.parse(readFileSync(new URL(`../luci/states/${name}.json`, import.meta.url), "utf8"));
const failing = (kind, message) => ({ error: { kind, message } });

await serve(8080);
tell(async ({ page, url }) => {
  const visit = async (view) => {
    await page.goto(`${url}/cgi-bin/luci/admin/vpn/gatewrt/${view}`);
    await page.getByRole("heading", { level: 2 }).waitFor();
  };
  await well(page, visit);
  await troubled(page, visit);
  await foreignWords(page, visit);
  await unreached(page, visit);
  await onlyReading(page, visit);
  await unusable(page, visit);
  await joins(page, visit);
  await takesAnExit(page, visit);
  await saysWhatItMayDo(page, visit);
  await leaves(page, visit);
});

/** The text of a table's row, and of a network's facts. */
const row = (page, text) => page.getByRole("row").filter({ hasText: text });
const fact = async (page, title, text) => row(page, title).first().filter({ hasText: text }).waitFor();
const status = (name) => ({ answers: { status: state(name), diag: { checks: [
  { what: "configuration", ok: true, found: "/etc/config/gatewrt" },
  { what: "WireGuard", ok: false, found: "neither in the kernel nor a program", advice: "install kmod-wireguard" },
] } } });

async function well(page, visit) {
  set(status("good"));
  await visit("status");
  await page.getByText("2 of 4 other routers are reached").waitFor();
  await fact(page, "Coordinator", "connected");
  await fact(page, "Tunnel", "gw-home, WireGuard of the kernel, UDP port 51820");
  await fact(page, "Does for others", "Leads to 192.168.1.0/24; hosts there see who really asks");
  await fact(page, "Does for others", "Lets phones and laptops in: 3, of which 1 are online");
  await fact(page, "Does for others", "Is an exit to the Internet: IPv4 only");
  await fact(page, "Internet traffic", "hosts at br-lan → berlin, 23 ms");
  await page.getByText("GateWRT 0.1.0, up for 3 days, 3.3 MiB of memory, rules by nftables").waitFor();
  const cells = await row(page, "10.90.0.2").getByRole("cell").allInnerTexts();
  ensure(["berlin", "fd20::/64", "direct", "34 s ago", "700.0 MiB"].every((text, at) => cells[at].includes(text)), cells.join("|"));
  const first = await page.getByRole("table").nth(1).getByRole("row").nth(1).innerText();
  ensure(first.startsWith("cabin"), `who is not reached comes first, not ${first}`);
  await look(page, "luci-status");
  await page.getByRole("button", { name: "Look for faults" }).click();
  await inDialog(page).getByText("1 of 2 checks found a fault.").waitFor();
  ensure((await inDialog(page).getByRole("row").nth(1).innerText()).includes("install kmod-wireguard"), "faults come first, with what to do");
  await inDialog(page).getByRole("button", { name: "Close" }).click();
  await visit("clients");
  await page.getByText("1 of 3 clients are online").waitFor();
  await row(page, "192.168.50.0/24").filter({ hasText: "be reached by others" }).waitFor();
  await look(page, "luci-clients");
  say("all is well");
}

async function troubled(page, visit) {
  set(status("bad"));
  await visit("status");
  await page.getByText("Needs attention", { exact: true }).waitFor();
  for (const text of ["Network cellar can't be read", "No link to the coordinator; tunnels go on without it: connection refused", "Internet traffic is blocked: guests: porto does not answer",
    "A change was rolled back: all traffic through porto", "Could not create gw-home: the kernel has no WireGuard", "This router was removed from the network"])
    await page.getByText(text).waitFor();
  await fact(page, "Internet traffic", "the router itself → straight out");
  await fact(page, "On trial", "for 42 s more");
  await look(page, "luci-trouble");
}

/** Names and reasons are of others: text, whatever is in them. */
async function foreignWords(page, visit) {
  set(status("hostile"));
  for (const view of ["status", "clients", "join", "settings"]) await visit(view);
  await visit("status");
  await page.getByText('Could not <img src=x onerror="window.pwned=1">').waitFor();
  ensure((await page.locator("img, #view b").count()) === 0, "foreign words became markup");
  await page.getByRole("button", { name: "Change the exit…" }).click();
  await inDialog(page).getByRole("button", { name: "Cancel" }).click();
  ensure(!(await page.evaluate(() => window.pwned)), "foreign words ran");
}

/** What was seen stays, below what is wrong. */
async function unreached(page, visit) {
  set(status("good"));
  await visit("status");
  await page.getByText("2 of 4 other routers").waitFor();
  set({ answers: { status: failing("not_running", "the daemon is not running") } });
  await page.getByText("GateWRT is not running").waitFor();
  ensure(await page.getByText("2 of 4 other routers").isVisible(), "what was seen last is gone");
  set({ answers: { status: 4 } });
  await page.getByText("Reinstall the package gatewrt, or restart rpcd").waitFor();
  set(status("new"));
  await page.getByText("This router is in no network yet").waitFor();
  await look(page, "luci-new");
  await visit("clients");
  await page.getByText("This router lets no clients in").waitFor();
}

async function onlyReading(page, visit) {
  set({ ...status("good"), writes: false });
  await visit("status");
  ensure(await page.getByRole("button", { name: "Change the exit…" }).isDisabled(), "who may only read can ask for a change");
  await visit("join");
  ensure(await page.getByLabel("Join code").isDisabled(), "who may only read can join");
  await visit("settings");
  ensure(await page.getByRole("button", { name: "Save & Apply" }).isDisabled(), "who may only read can save");
}

async function unusable(page, visit) {
  const found = "/etc/config/gatewrt:7: option log_level: “loud”; allowed: error, warn, info, debug or trace";
  set({ answers: { status: state("good"), diag: { checks: [{ what: "configuration", ok: false, found, advice: "mend the line named" }] } } });
  await visit("settings");
  await page.getByText("Some of these settings are not in effect").waitFor();
  await page.getByText(found).waitFor();
}

/** From here on a real router answers. */
async function joins(page, visit) {
  set({});
  await visit("status");
  await page.getByText("This router is in no network yet").waitFor();
  await page.getByRole("link", { name: "Join a network" }).click();
  const code = await lab("code");
  const join = page.getByRole("button", { name: "Join", exact: true });
  await page.getByLabel("Join code").fill(code.slice(8));
  await page.getByText("copy all of it").waitFor();
  ensure(await join.isDisabled(), "half a code can be sent");
  await page.getByLabel("Join code").fill(code.replace(/.$/, (last) => (last === "A" ? "Q" : "A")));
  await join.click();
  await page.getByText("This router did not join").waitFor();
  await page.getByLabel("Join code").fill(` ${code}\n`);
  await page.getByText(`Leads to network home at ${await lab("coordinator")}`).waitFor();
  await page.getByLabel("Name").fill("attic");
  await join.click();
  await page.getByText("Joined network home").waitFor({ timeout: EFFECT });
  await row(page, "home").filter({ hasText: "attic" }).waitFor();
  await look(page, "luci-joined");
  await page.getByRole("link", { name: "See its status" }).click();
  await page.getByText("1 of 1 other routers are reached").waitFor({ timeout: EFFECT });
  await fact(page, "Coordinator", "connected");
  say("joined");
}

async function takesAnExit(page, visit) {
  await page.getByText("Exits to the Internet").waitFor({ timeout: EFFECT });
  await page.getByRole("button", { name: "Change the exit…" }).click();
  await look(page, "luci-exit");
  await inDialog(page).getByLabel("Goes through").selectOption("farm");
  await inDialog(page).getByLabel("When it fails").uncheck();
  await inDialog(page).getByRole("button", { name: "Apply" }).click();
  await inDialog(page).waitFor({ state: "detached" });
  await row(page, "Internet traffic").filter({ hasText: "→ farm" }).waitFor({ timeout: EFFECT });
  await fact(page, "Internet traffic", "as chosen on this router");
  const [scope] = (await lab("status")).scopes;
  ensure(!scope.auto && scope.kill_switch && scope.exits[0] === "farm", JSON.stringify(scope));
  await page.getByRole("button", { name: "Change the exit…" }).click();
  await inDialog(page).getByLabel("Goes through").selectOption("as the network's admin says");
  await inDialog(page).getByRole("button", { name: "Apply" }).click();
  await row(page, "Internet traffic").filter({ hasText: "not through this network" }).waitFor({ timeout: EFFECT });
  say("took an exit, and gave it back");
}

async function saysWhatItMayDo(page, visit) {
  await visit("settings");
  const option = (name) => page.locator(`[data-option="${name}"]`).locator("input, select, textarea");
  const save = page.getByRole("button", { name: "Save & Apply" });
  ensure(await option("home.allow_egress").isChecked(), "what is allowed by default looks forbidden");
  await option("home.exit_client").fill("auto farm");
  await save.click();
  await page.getByText("names of routers in their order").waitFor();
  await option("home.exit_client").fill("");
  await option("home.allow_exit").check();
  await option("home.listen_port").fill("51999");
  await page.getByLabel("Name of a new section").fill("Guests");
  await page.getByRole("button", { name: "Add" }).click();
  await option("guests.scope").fill("dev:br-guest");
  await option("guests.exit").fill("farm\nauto");
  await option("home.allow_exit").check();
  await option("home.listen_port").fill("51999");
  await save.click();
  await page.getByText("Applied").waitFor();
  await eventually("the router does as its settings say", EFFECT, async () => {
    const { offer, port, scopes, scopes_by } = await lab("status");
    ensure(offer?.v4 && port === 51999 && scopes_by === "owner" && scopes[0]?.name === "guests", JSON.stringify({ offer, port, scopes, scopes_by }));
    return true;
  });
  await look(page, "luci-settings");
  await visit("status");
  await page.getByRole("link", { name: "Change the exit in Settings" }).waitFor();
  say("said what it may do");
}

async function leaves(page, visit) {
  await visit("join");
  await page.getByRole("button", { name: "Leave…" }).click();
  await inDialog(page).getByRole("button", { name: "Leave", exact: true }).click();
  await row(page, "This router is in no network yet").waitFor({ timeout: EFFECT });
  ensure((await lab("status")) === null, "it is still there");
  say("left");
}
