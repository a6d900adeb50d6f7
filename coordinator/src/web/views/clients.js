// Phones and laptops: who they are, whether they are in, and a switch for each.

import { h } from "../dom.js";
import { Problem, list, patch, path, post } from "../api.js";
import { clientPath, mayChange, statusOf } from "../state.js";
import { button, empty, section, table, tag, titleBar, toggle } from "../ui.js";
import { checkbox, choice, formDialog, nameField, select, text } from "../forms.js";
import { clientBadge, endOfDay, lastSeen, showIssued, staleBadge } from "../clients.js";
import { bytes, several } from "../words.js";

let wanted = "";

export default {
  /** Shows what clients are doing, which comes with reports. */
  isLively: true,
  title: () => "Clients",
  async load({ net }) {
    const [clients, ingress] = await Promise.all([list(path`/networks/${net}/clients`), list(path`/networks/${net}/ingress`)]);
    return { clients: clients.sort((one, other) => one.name.localeCompare(other.name)), ingress };
  },
  draw({ net, data, page }) {
    const gateways = data.ingress.filter((one) => one.blocks.length > 0);
    const add = mayChange() && gateways.length > 0 && button("Add a client", () => create(net, gateways, page), { kind: "primary", symbol: "plus" });
    const search = data.clients.length > 8 && h("input", { type: "search", class: "search", placeholder: "Search", "aria-label": "Search clients", value: wanted, oninput: (event) => {
      wanted = event.currentTarget.value.trim().toLowerCase();
      page.draw();
    } });
    const title = titleBar("Clients", { actions: [search, add] });
    const shown = data.clients.filter((client) => fits(client, wanted));
    return [title, gateways.length === 0 && noGateway(net, data.ingress, page),
      data.clients.length === 0 ? gateways.length > 0 && empty("No client yet. A client is a phone or laptop with the plain WireGuard app: it scans one code and is in.")
        : section("Phones and laptops", {}, table("Clients", ["Name", "On", "State", "Gateway", "Traffic", "Addresses"], shown.map((client) => row(net, client, page))))];
  },
};

function fits(client, text) {
  return [client.name, client.label, client.gateway, ...client.tags, ...client.addresses].some((word) => (word ?? "").toLowerCase().includes(text));
}

function row(net, client, page) {
  return {
    key: client.id,
    testid: `client-${client.name}`,
    class: client.enabled ? null : "off",
    cells: [
      [h("a", { href: `#/n/${net}/clients/${client.name}` }, client.name), client.label && h("small", null, client.label), client.tags.length > 0 && h("div", { class: "chips" }, client.tags.map(tag))],
      onSwitch(net, client, page),
      [h("div", { class: "badges" }, clientBadge(client), staleBadge(client)), h("small", null, lastSeen(client))],
      client.gateway,
      client.live ? [h("div", { class: "still" }, `↓ ${bytes(client.live.tx)}`), h("div", { class: "still" }, `↑ ${bytes(client.live.rx)}`)] : "",
      client.addresses.map((address) => h("div", { class: "mono" }, address)),
    ],
  };
}

export function onSwitch(net, client, page, hideLabel = true) {
  const change = async (enabled) => {
    await patch(clientPath(net, client.name), { enabled });
    await page.reload();
  };
  return toggle(hideLabel ? `Let ${client.name} in` : "Let in", client.enabled, change, { hideLabel, disabled: !mayChange(), "data-testid": `enabled-${client.name}` });
}

/** Advice for a network without an ingress: clients need a node to come in at. */
function noGateway(net, ingress, page) {
  const able = (statusOf(net)?.nodes ?? []).filter((node) => node.roles.includes("ingress"));
  const links = able.map((node) => h("a", { class: "button", href: `#/n/${net}/nodes/${node.name}` }, node.name));
  return empty("No node lets clients in yet. Choose one that the Internet can reach, and switch on “Let clients in” there.",
    links.length > 0 ? h("div", { class: "chips" }, links) : h("p", null, "No node of this network has a join code that allows ingress."));
}

function create(net, gateways, page) {
  const best = gateways.find((one) => one.reachable) ?? gateways[0];
  const options = gateways.map((one) => [one.node, one.reachable ? `${one.node}${one.endpoint ? ` (${one.endpoint})` : ""}` : `${one.node}: ${one.why ?? "not reachable"}`]);
  formDialog("Add a client", {
    submit: "Add it",
    fields: [
      nameField("Name", { "data-first": true, placeholder: "phone" }),
      gateways.length > 1 ? select("Gateway", "gateway", options, { value: best.node }) : null,
      choice("Through the tunnel", "tunnel", [["split", "This network only", "the Internet goes its own way"], ["full", "Everything", "the Internet too, with the gateway's address"]], "split"),
      h("details", { class: "more" }, h("summary", null, "More"),
        text("Label", "label", { maxlength: 64, hint: "any text, for people", spellcheck: "true" }),
        text("Tags", "tags", { hint: "words by which access rules select it, separated by spaces" }),
        text("Expires", "expires", { type: "date", hint: "empty: never" }),
        checkbox("Others may open connections to it", "reachable", { hint: "off: it can only open connections, not accept them" }),
        checkbox("Preshared key", "psk", { hint: "a second secret, against future quantum computers" }),
        text("Addresses", "addresses", { hint: "of the gateway's block; empty: the next free ones" }),
        text("DNS", "dns", { hint: "empty: the network's" }),
        text("Routes", "routes", { hint: "what it sends through the tunnel beside the network itself; empty: all that is served" }),
        text("Prefixes behind it", "prefixes", { hint: "a LAN behind this client that the whole network is to reach" }),
        text("Public key", "key", { hint: "of your own key pair; empty: a pair is generated, and the private key shown once" }),
        gateways.length > 1 && h("fieldset", { class: "choice" }, h("legend", null, "Other possible gateways"), gateways.map((one) => checkbox(one.node, "also", { value: one.node })))),
    ],
    async send(form) {
      const gateway = form.gateway ?? best.node;
      const issued = await post(path`/networks/${net}/clients`, spec(form, gateway));
      page.reload();
      return () => showIssued(issued, page.reload);
    },
  });
}

/** Spec of a new client with only what was filled in: the coordinator's defaults do for the rest. */
function spec(form, gateway) {
  const also = (form.also ?? []).filter((node) => node !== gateway);
  const expires = endOfDay(form.expires);
  if (Number.isNaN(expires)) throw new Problem({ title: "“Valid until” is no date" });
  const all = {
    name: form.name, gateways: [gateway, ...also], tunnel: form.tunnel, label: form.label, key: form.key, expires,
    tags: several(form.tags), addresses: several(form.addresses), dns: several(form.dns), routes: several(form.routes), prefixes: several(form.prefixes),
    reachable: form.reachable || undefined, psk: form.psk || undefined,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0)));
}
