// One client: its switch, its settings, its file.

import { h } from "../dom.js";
import { get, opened, patch, post, remove, save } from "../api.js";
import { clientPath, mayChange } from "../state.js";
import { act, button, facts, icon, section, snippet, tag, titleBar, toggle } from "../ui.js";
import { choice, confirm, dialog, formDialog, nameField, select, text } from "../forms.js";
import { asDate, clientBadge, download, endOfDay, showIssued, staleBadge } from "../clients.js";
import { ago, bytes, day, moment, several } from "../words.js";
import { onSwitch } from "./clients.js";

export default {
  /** Shows what clients are doing, which comes with reports. */
  isLively: true,
  title: ({ client }) => client,
  load: ({ net, client }) => get(clientPath(net, client)),
  draw({ net, data: client, page }) {
    const actions = mayChange() && [
      button("Edit", () => edit(net, client, page), { symbol: "edit" }),
      button("Delete", () => drop(net, client, page), { kind: "danger" }),
    ];
    return [
      h("a", { class: "crumb", href: `#/n/${net}/clients` }, icon("back"), "Clients"),
      titleBar(client.name, { beside: h("div", { class: "badges" }, clientBadge(client), staleBadge(client)), actions }),
      client.label && h("p", { class: "lead" }, client.label),
      stale(net, client, page),
      h("div", { class: "columns" }, switches(net, client, page), file(net, client, page)),
      about(net, client),
    ];
  },
};

function stale(net, client, page) {
  if (client.stale.length === 0) return null;
  const given = (event) => act(event.currentTarget, async () => {
    await post(`${clientPath(net, client.name)}/config`);
    await page.reload();
  });
  return h("section", { class: "note", "aria-label": "The file is old", "data-key": "stale", "data-slot": "", "data-testid": "stale-note" }, icon("warn"), h("div", { class: "stack" },
    h("div", null, h("strong", null, "The file on this client is old"), h("ul", null, client.stale.map((line) => h("li", null, line)))),
    h("div", { class: "slot", role: "alert", "data-keep": "" }),
    mayChange() && h("div", { class: "chips" }, button("Issue a new file", () => reissue(net, client, page)), button("I have put the changes in by hand", given, { kind: "quiet" }))));
}

function switches(net, client, page) {
  const reachable = async (on) => {
    await patch(clientPath(net, client.name), { reachable: on });
    await page.reload();
  };
  return section("Access", { key: "switches" }, onSwitch(net, client, page, false),
    toggle("Others may open connections to it", client.reachable, reachable, { disabled: !mayChange(), hint: "Replies to what it asks always pass.", "data-testid": "reachable" }),
    h("p", null, h("a", { href: `#/n/${net}/access?from=client:${client.name}` }, "What may it reach?")));
}

function file(net, client, page) {
  return section("File", { lead: "The private key was shown once and is not kept. A new file has a new key; the old one is never accepted again." },
    facts(["Issued", moment(client.issued)], ["Preshared key", client.psk === undefined ? "" : client.psk ? "yes" : "no"]),
    h("div", { class: "chips" }, mayChange() && button("Issue a new file", () => reissue(net, client, page), { "data-testid": "reissue" }),
      button("Show without the key", (event) => act(event.currentTarget, () => show(net, client)), { kind: "quiet" })));
}

function about(net, client) {
  const live = client.live;
  return section("Details", {}, facts(
    ["Gateway", h("a", { href: `#/n/${net}/nodes/${client.gateway}` }, client.gateway)],
    ["Addresses", client.addresses.map((address) => h("p", { class: "mono" }, address))],
    ["Other gateways", client.gateways.filter((seat) => seat.node !== client.gateway).map((seat) => h("p", null, seat.node, " ", h("span", { class: "mono" }, seat.addresses.join(" "))))],
    ["Handshake", live ? ago(live.handshake_s) : "never"],
    ["Endpoint", live?.endpoint],
    ["Received", live && bytes(live.tx)],
    ["Sent", live && bytes(live.rx)],
    ["Through the tunnel", client.tunnel === "full" ? "everything, the Internet too" : "this network only"],
    ["Routes", client.routes.length ? client.routes.map((prefix) => h("p", { class: "mono" }, prefix)) : ""],
    ["Prefixes behind it", client.prefixes.length ? client.prefixes.map((prefix) => h("p", { class: "mono" }, prefix)) : ""],
    ["DNS", client.dns.join(" ") || "the network's"],
    ["Tags", client.tags.length ? h("span", { class: "chips" }, client.tags.map(tag)) : ""],
    ["Expires", client.expires ? moment(client.expires) : "never"],
    ["Made", day(client.created)],
    ["Public key", h("span", { class: "mono" }, client.key)],
  ));
}

async function show(net, client) {
  const { config } = await get(`${clientPath(net, client.name)}/config`);
  dialog(`File of ${client.name}, without its key`, () => h("div", { class: "stack" }, snippet(config, { name: "File without the key" }), h("div", { class: "chips" }, download(`${client.name}-without-key.conf`, config))));
}

function reissue(net, client, page) {
  const gateways = client.gateways.map((seat) => [seat.node, seat.node]);
  formDialog(`A new file for ${client.name}`, {
    submit: "Issue it",
    intro: "The file that the client has now stops working at once.",
    fields: [
      gateways.length > 1 && select("Gateway", "gateway", gateways, { value: client.gateway }),
      h("details", { class: "more" }, h("summary", null, "More"), text("Public key", "key", { hint: "of your own key pair; empty: a new pair is generated" })),
    ],
    async send({ gateway, key }) {
      const issued = await post(`${clientPath(net, client.name)}/reissue`, { ...(gateway && gateway !== client.gateway && { gateway }), ...(key && { key }) });
      page.reload();
      return () => showIssued(issued, page.reload);
    },
  });
}

async function edit(net, client, page) {
  const thing = await opened(clientPath(net, client.name));
  const { data } = thing;
  const many = (label, name, hint) => text(label, name, { value: data[name].join(" "), hint });
  formDialog(`Edit ${data.name}`, {
    submit: "Save",
    fields: [
      nameField("Name", { value: data.name, "data-first": true }),
      text("Label", "label", { value: data.label ?? "", maxlength: 64, hint: "any text, for people", spellcheck: "true" }),
      many("Tags", "tags", "words by which access rules select it, separated by spaces"),
      text("Expires", "expires", { type: "date", value: asDate(data.expires), hint: "empty: never" }),
      choice("Through the tunnel", "tunnel", [["split", "This network only"], ["full", "Everything, the Internet too"]], data.tunnel),
      many("DNS", "dns", "empty: the network's"),
      many("Routes", "routes", "empty: all that is served"),
      many("Prefixes behind it", "prefixes", "a LAN behind this client that the whole network is to reach"),
      h("p", { class: "hint" }, "A new tunnel, DNS or routes are in effect once the client has a new file."),
    ],
    async send(form) {
      const changed = difference(data, form);
      if (Object.keys(changed).length === 0) return undefined;
      await save(thing, "PATCH", changed, page.reload);
      if (changed.name) return () => page.go(`#/n/${net}/clients/${changed.name}`);
      await page.reload();
    },
  });
}

function difference(data, form) {
  const changed = {};
  for (const name of ["name", "label", "tunnel"]) if (form[name] !== (data[name] ?? "")) changed[name] = form[name];
  for (const name of ["tags", "dns", "routes", "prefixes"]) if (several(form[name]).join() !== data[name].join()) changed[name] = several(form[name]);
  if (form.expires !== asDate(data.expires)) changed.expires = endOfDay(form.expires) ?? null;
  return changed;
}

function drop(net, client, page) {
  confirm(`Delete ${client.name}?`, "Its key is refused from now on, and its connections are cut. Its addresses are never reused.", "Delete permanently", async () => {
    await remove(clientPath(net, client.name));
    return () => page.go(`#/n/${net}/clients`);
  });
}
