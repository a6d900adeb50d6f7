// A network at a glance: the picture, what needs a look, its settings.

import { h } from "../dom.js";
import { get, list, opened, path, query, remove, save } from "../api.js";
import { isWhole, loadNetworks, mayChange, state, statusOf } from "../state.js";
import { badge, button, empty, facts, icon, section, titleBar } from "../ui.js";
import { confirm, formDialog, text } from "../forms.js";
import { outcome, scopesOf } from "../exits.js";
import { condition, failuresOf } from "../nodes.js";
import { onResize, picture } from "../picture.js";
import { count, day, deed, several, span } from "../words.js";
import { newCode } from "./codes.js";

let isWatching = false;
/** Largest number of lines about problems: beyond that no one reads them. */
const MOST = 10;

export default {
  /** Shows what clients are doing, which comes with reports. */
  isLively: true,
  title: ({ net }) => net,
  async load({ net }) {
    const [clients, recent] = await Promise.all([
      list(path`/networks/${net}/clients`).catch(() => []),
      get(`/audit${query({ network: net, limit: 5 })}`).catch(() => []),
    ]);
    return { clients, recent };
  },
  draw({ net, data, page }) {
    if (!isWatching) onResize(page.draw);
    isWatching = true;
    const status = statusOf(net);
    if (!status) return [h("h1", { tabindex: "-1" }, net)];
    const { nodes, network } = status;
    return [
      titleBar(net, { beside: summary(nodes, data.clients) }),
      attention(net, status, data.clients),
      nodes.length === 0 ? first(net, page) : h("section", { class: "card", "aria-label": "Picture", "data-key": "picture" }, picture(net, nodes, data.clients)),
      h("div", { class: "columns" }, settings(network, page), recently(net, data.recent)),
    ];
  },
};

function summary(nodes, clients) {
  const online = nodes.filter((node) => node.online).length;
  const connected = clients.filter((client) => client.live?.online).length;
  return h("div", { class: "badges" },
    nodes.length > 0 && badge(online === nodes.length ? "good" : "bad", `${online} of ${count(nodes.length, "node")} online`, { "data-testid": "online" }),
    clients.length > 0 && badge(connected ? "good" : "quiet", `${connected} of ${count(clients.length, "client")} connected`));
}

function first(net, page) {
  return empty("No router yet. Create a join code, paste one command on the router, and it shows up here.",
    mayChange() && button("Add a router", () => newCode(net, page), { kind: "primary", symbol: "plus" }));
}

/** Problems that need attention; nothing if there are none. */
function attention(net, { nodes, warnings }, clients) {
  const nodeLink = (node) => h("a", { href: `#/n/${net}/nodes/${node.name}` }, node.name);
  const lines = [
    ...state.notices.map((notice) => [notice]),
    ...nodes.filter((node) => !node.online).map((node) => [nodeLink(node), ` is ${condition(node).text}`]),
    ...nodes.filter((node) => node.online && node.report?.failures?.length).map((node) => [nodeLink(node), " could not apply all settings", failuresOf(node)]),
    ...nodes.filter((node) => node.rolled_back).map((node) => [nodeLink(node), ` rolled back its last change: ${node.rolled_back.why}`]),
    ...nodes.filter((node) => node.online).flatMap((node) => scopesOf(node, nodes).filter(({ live }) => ["blocked", "wan"].includes(live?.state))
      .map(({ name, live }) => [nodeLink(node), `: “${name}” is ${outcome(node, live).text}`])),
    ...clients.filter((client) => client.stale.length).map((client) => [h("a", { href: `#/n/${net}/clients/${client.name}` }, client.name), " has an old file"]),
    ...clients.filter((client) => client.state === "no-gateway").map((client) => [h("a", { href: `#/n/${net}/clients/${client.name}` }, client.name), " has no gateway"]),
    // Last: a router's claims cause most of them, and may be invented.
    ...warnings.map((warning) => [warning]),
  ];
  const rest = lines.splice(MOST);
  if (rest.length > 0) lines.push([`and ${rest.length} more`]);
  return lines.length > 0 && h("section", { class: "note", "aria-label": "Needs a look", "data-key": "attention" }, icon("warn"),
    h("div", null, h("strong", null, "Needs a look"), h("ul", null, lines.map((line) => h("li", null, line)))));
}

function settings(network, page) {
  const actions = mayChange() && [
    button("DNS", () => editDns(network, page), { symbol: "edit", "aria-label": "Edit DNS" }),
    isWhole() && button("Delete", () => drop(network, page), { kind: "danger", "aria-label": "Delete network" }),
  ];
  return section("Settings", { actions }, facts(
    ["IPv4", h("span", { class: "mono" }, network.prefix4)],
    ["IPv6", h("span", { class: "mono" }, network.prefix6)],
    ["Default access", h("a", { href: `#/n/${network.name}/access` }, network.access === "deny" ? "connections are refused" : "connections are allowed")],
    ["DNS for clients", network.dns?.length ? network.dns.map((ip) => h("p", { class: "mono" }, ip)) : "none"],
    ["Domain", network.domain],
    ["MTU", network.mtu],
    ["Keepalive", network.keepalive ? `${network.keepalive} s` : "off"],
    ["Created", day(network.created)],
  ));
}

async function editDns(network, page) {
  const thing = await opened(path`/networks/${network.name}`);
  formDialog("DNS for clients", {
    submit: "Save",
    intro: "Resolvers that go into the files of phones and laptops, unless a client has its own.",
    fields: text("Addresses", "dns", { value: (thing.data.dns ?? []).join(" "), hint: "IPv4 or IPv6, with spaces between; empty for none" }),
    async send({ dns }) {
      await save(thing, "PATCH", { dns: several(dns) }, page.reload);
      await page.reload();
    },
  });
}

function drop(network, page) {
  const nodes = network.nodes;
  const words = nodes ? `${count(nodes, "node")} will be removed permanently: each has to join again to come back.` : "It has no nodes. Its clients and rules go with it.";
  confirm(`Delete the network ${network.name}?`, words, "Delete permanently", async () => {
    await remove(`${path`/networks/${network.name}`}${query({ force: nodes ? true : undefined })}`);
    await loadNetworks();
    return () => page.go("#/");
  });
}

function recently(net, entries) {
  const now = Date.now() / 1000;
  return section("Lately", { actions: h("a", { href: `#/n/${net}/log` }, "All changes") },
    entries.length === 0 ? h("p", { class: "lead" }, "Nothing was changed yet.")
      : h("ul", { class: "list" }, entries.map((entry) => h("li", { "data-key": `${entry.id}` },
        h("span", { class: "grow" }, deed(entry.action, entry.target)), h("small", null, `${entry.who}, ${span(now - entry.at)} ago`)))));
}
