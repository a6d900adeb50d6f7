// One node: how it is, what it does for others, its name.

import { h } from "../dom.js";
import { ask, get, opened, path, put, query, remove, save } from "../api.js";
import { mayChange, nodePath, statusOf } from "../state.js";
import { act, announce, button, facts, icon, section, table, tag, titleBar, toggle } from "../ui.js";
import { checkbox, checked, formDialog, nameField, text } from "../forms.js";
import { conditionBadge, failuresOf, handshake, mayDo, pathBadge, peersOf } from "../nodes.js";
import { whatIsWrong } from "../prefix.js";
import { exitCard } from "./exit.js";
import { rolledBack, trafficCard } from "./traffic.js";
import { ago, and, bytes, count, day, several, span } from "../words.js";

export default {
  /** Shows what an exit offers, which comes with reports. */
  isLively: true,
  title: ({ node }) => node,
  async load({ net, node }) {
    const each = (what) => get(path`/networks/${net}/${what}`).catch(() => []);
    const [view, ingress, exits] = await Promise.all([get(nodePath(net, node)), each("ingress"), each("exits")]);
    const ofNode = (all) => all.find((one) => one.node === view.name);
    return { id: view.id, ingress: ofNode(ingress), exit: ofNode(exits) };
  },
  draw({ net, node: name, data, page }) {
    const all = statusOf(net)?.nodes ?? [];
    const node = all.find((one) => one.id === data.id);
    if (!node) return [h("h1", { tabindex: "-1" }, name), h("p", { class: "lead" }, "This node is not in the network any more."), h("a", { href: `#/n/${net}/nodes` }, "All nodes")];
    const actions = mayChange() && [
      button("Edit", () => edit(net, node, page), { symbol: "edit" }),
      button("Remove", () => drop(net, node, page), { kind: "danger" }),
    ];
    return [
      h("a", { class: "crumb", href: `#/n/${net}/nodes` }, icon("back"), "Nodes"),
      titleBar(node.name, { beside: conditionBadge(node), actions }),
      node.label && h("p", { class: "lead" }, node.label),
      rolledBack(net, node, page),
      notes(node),
      h("div", { class: "columns" }, egress(net, node, all, page),
        h("div", { class: "column" }, ingress(net, node, data.ingress, page), exitCard(net, node, all, data.exit, page))),
      trafficCard(net, node, all, page),
      paths(net, node, all),
      about(node),
    ];
  },
};

function notes(node) {
  const failures = failuresOf(node);
  return failures && h("section", { class: "note", "aria-label": "Failures", "data-key": "failures" }, icon("warn"),
    h("div", null, h("strong", null, node.online ? "Not applied" : "Not applied before it went offline"), failures));
}

/** Counts by reason in words: "replayed (2), forged (1)" */
const counted = (refused) => Object.entries(refused ?? {}).map(([why, times]) => `${why} (${times})`).join(", ");

function about(node) {
  const report = node.report;
  return section("Details", {}, facts(
    ["Overlay addresses", node.addresses.map((address) => h("p", { class: "mono" }, address))],
    [node.online ? "Online for" : "Offline for", node.for_s === undefined ? "" : span(node.for_s)],
    ["Settings", node.up_to_date ? "applied" : node.rolled_back ? "those before the last change" : report ? "not applied yet" : "no report yet"],
    ["Last report", report ? ago(node.report_age_s) : "none since the coordinator's start"],
    ["Router", node.board],
    ["Version", node.version],
    ["Records it refused since its start", counted(report?.refused)],
    ["Messages of it that were refused", counted(node.refused)],
    ["WireGuard", report?.wireguard],
    ["Daemon", report && `up ${span(report.uptime_s + (node.report_age_s ?? 0))}, ${(report.memory_kib / 1024).toFixed(1)} MB`],
    ["Reached at", node.endpoints.map((endpoint) => h("p", null, h("span", { class: "mono" }, endpoint.addr), ` ${endpoint.kind}`))],
    ["Connects from", node.from],
    ["Tags", node.tags?.length ? h("span", { class: "chips" }, node.tags.map(tag)) : ""],
    ["Joined", day(node.joined)],
    ["Public key", h("span", { class: "mono" }, node.key)],
  ));
}

function egress(net, node, all, page) {
  const lead = "Prefixes behind this router that the whole network can reach (egress).";
  if (!mayDo(node, "egress")) return section("Serves", { lead }, h("p", { class: "lead" }, "The join code of this node does not allow it to serve prefixes."));
  const rows = node.egress.map((one) => h("li", { "data-key": one.prefix, "data-testid": `egress-${one.prefix}` },
    h("div", { class: "grow" }, h("span", { class: "mono" }, one.prefix), one.metric ? h("small", null, ` metric ${one.metric}`) : null, shared(node, one.prefix, all)),
    toggle("NAT", one.nat, (nat) => put(`${nodePath(net, node.name)}/egress`, { prefix: one.prefix, metric: one.metric, nat }).then(page.reload), { disabled: !mayChange(), "aria-label": `NAT for ${one.prefix}` }),
    mayChange() && button("Stop", (event) => act(event.currentTarget, async () => {
      await remove(`${nodePath(net, node.name)}/egress${query({ prefix: one.prefix })}`);
      await page.reload();
    }), { class: "button danger small", "aria-label": `Stop serving ${one.prefix}` })));
  return section("Serves", { lead }, rows.length ? h("ul", { class: "list" }, rows) : h("p", null, "Nothing yet."),
    mayChange() && egressForm(net, node, page));
}

/** Note for a prefix that several nodes serve: a router uses one that works. */
function shared(node, prefix, all) {
  const others = all.filter((other) => other !== node && other.egress.some((one) => one.prefix === prefix)).map((other) => other.name);
  if (others.length === 0) return null;
  const users = all.filter((other) => other.online && other.report?.gateways?.[prefix] === node.id).map((other) => other.name);
  return h("p", { class: "hint", "data-testid": "shared" }, `served by ${and(others)} too; ${users.length ? `${and(users)} ${users.length > 1 ? "take" : "takes"} this one` : "nobody takes this one now"}`);
}

/** Form for a prefix to serve, kept over drawings while someone types; its suggestions are those of the first drawing. */
function egressForm(net, node, page) {
  const where = `${nodePath(net, node.name)}/egress`;
  const field = text("Prefix", "prefix", { placeholder: "192.168.10.0/24", required: true, inputmode: "url", "data-testid": "egress-prefix" });
  const input = field.querySelector("input");
  const nat = checkbox("NAT", "nat", { checked: true, hint: "on: hosts there see this router, and need no route back. Off: they see who asks, and both sides can open connections." });
  const verdict = h("div", { class: "verdict", "aria-live": "polite", "data-testid": "egress-verdict" });
  const spec = (prefix) => ({ prefix, nat: nat.querySelector("input").checked });
  checked(input, verdict, async (prefix, signal) => {
    const wrong = whatIsWrong(prefix);
    if (wrong) return { tone: "soft", words: [wrong] };
    const { data } = await ask("PUT", `${where}?dry_run=true`, { body: spec(prefix), signal });
    const warnings = data?.warnings ?? [];
    return warnings.length ? { tone: "warn", words: warnings } : { words: [`${prefix} can be served.`] };
  });
  const submit = h("button", { type: "submit", class: "button primary" }, h("span", null, "Serve it"));
  const send = async () => {
    const prefix = input.value.trim();
    const view = await put(where, spec(prefix));
    announce(`${node.name} serves ${prefix}`);
    // The answer waits for routers: the next prefix that someone typed meanwhile stays.
    if (input.value.trim() === prefix) {
      input.value = "";
      verdict.className = `verdict ${view?.warnings?.length ? "warn" : ""}`;
      verdict.replaceChildren(...(view?.warnings ?? []).map((warning) => h("p", null, warning)));
    }
    await page.reload();
  };
  const onsubmit = (event) => {
    event.preventDefault();
    if (!input.value.trim() || whatIsWrong(input.value.trim())) return input.focus();
    act(submit, send).then((isDone) => isDone && input.focus());
  };
  return h("form", { class: "form", onsubmit, "data-keep": "", "data-key": `egress ${node.id}`, "aria-label": "Serve a prefix" },
    h("div", { class: "inline" }, field, submit), suggestions(node, input), verdict, nat);
}

/** Suggestions for a prefix to serve: the LANs that the router reported and does not serve yet. */
function suggestions(node, input) {
  const served = new Set(node.egress.map((one) => one.prefix));
  const lans = (node.report?.interfaces ?? []).filter((one) => one.kind === "lan" && !one.name.startsWith("gw-"));
  const found = lans.flatMap((lan) => (lan.prefixes ?? []).filter((prefix) => !served.has(prefix)).map((prefix) => [prefix, lan.name]));
  const choose = (prefix) => () => {
    input.value = prefix;
    input.dispatchEvent(new Event("input"));
    input.focus();
  };
  return found.length > 0 && h("div", { class: "chips" }, h("small", null, "This router's LANs:"),
    found.slice(0, 8).map(([prefix, name]) => h("button", { type: "button", class: "button small mono", title: name, onclick: choose(prefix) }, prefix)));
}

function ingress(net, node, view, page) {
  const lead = "Lets phones and laptops in (ingress).";
  if (!mayDo(node, "ingress")) return section("Clients", { lead }, h("p", { class: "lead" }, "The join code of this node does not allow it to let clients in."));
  const where = `${nodePath(net, node.name)}/ingress`;
  const isOn = (view?.blocks?.length ?? 0) > 0;
  const change = async (on) => {
    await (on ? put(where, {}) : remove(where));
    await page.reload();
  };
  return section("Clients", { lead, actions: isOn && mayChange() && button("Endpoint", () => editIngress(where, view, page), { symbol: "edit", "aria-label": "Edit endpoint" }) },
    toggle("Let clients in", isOn, change, { disabled: !mayChange(), "data-testid": "ingress" }),
    view && !view.reachable && h("div", { class: "note" }, icon("warn"), h("div", null, h("strong", null, "Clients may not reach it"), h("p", null, view.why ?? ""))),
    isOn && facts(
      ["Clients reach it at", view.endpoint],
      ["Their addresses", view.blocks.map((block) => h("p", { class: "mono" }, block))],
      ["Files that name it", h("a", { href: `#/n/${net}/clients` }, count(view.clients, "client"))],
    ));
}

function editIngress(where, view, page) {
  formDialog("Where clients reach this node", {
    submit: "Save",
    intro: "The address that goes into clients' files. Files that were issued before become stale.",
    fields: text("Endpoint", "endpoint", { value: view.endpoint ?? "", placeholder: "home.example.org:51820", hint: "host:port, as seen from the Internet; empty: what the node found out itself" }),
    async send({ endpoint }) {
      await put(where, endpoint ? { endpoint } : {});
      await page.reload();
    },
  });
}

function paths(net, node, all) {
  const peers = peersOf(node, all);
  const lead = peers.length === 0 ? "Nothing reported yet." : node.online ? null : "As it was when the node reported last.";
  const hasRtt = peers.some((peer) => peer.rtt !== undefined);
  const columns = ["Peer", "Path", "Endpoint", "Handshake", ...(hasRtt ? ["Round trip"] : []), "Received", "Sent"];
  const rows = peers.map((peer) => ({ key: peer.node, cells: [
    h("a", { href: `#/n/${net}/nodes/${peer.name}` }, peer.name), pathBadge(peer.path), h("span", { class: "mono" }, peer.endpoint ?? ""),
    handshake(peer.handshake), ...(hasRtt ? [peer.rtt === undefined ? "" : `${peer.rtt} ms`] : []), bytes(peer.rx), bytes(peer.tx),
  ] }));
  return section("Paths", { lead }, peers.length > 0 && table("Paths to peers", columns, rows));
}

async function edit(net, node, page) {
  const thing = await opened(nodePath(net, node.name));
  const { data } = thing;
  formDialog(`Edit ${data.name}`, {
    submit: "Save",
    fields: [
      nameField("Name", { value: data.name, "data-first": true }),
      text("Label", "label", { value: data.label ?? "", maxlength: 64, hint: "any text, for people", spellcheck: "true" }),
      text("Tags", "tags", { value: (data.tags ?? []).join(" "), hint: "words by which access rules select it, separated by spaces" }),
      text("Seconds to confirm a change", "confirm_s", { value: data.confirm_s, required: true, inputmode: "numeric", pattern: "[0-9]+", wrong: "a number of seconds", hint: "5 to 3600: if the router does not hear from the coordinator for so long after a change, it rolls the change back" }),
    ],
    async send({ name, label, tags, confirm_s }) {
      const changed = { ...(name !== data.name && { name }), ...(label !== (data.label ?? "") && { label }), ...(several(tags).join() !== (data.tags ?? []).join() && { tags: several(tags) }), ...(Number(confirm_s) !== data.confirm_s && { confirm_s: Number(confirm_s) }) };
      if (Object.keys(changed).length === 0) return undefined;
      await save(thing, "PATCH", changed, page.reload);
      if (changed.name) return () => page.go(`#/n/${net}/nodes/${name}`);
      await page.reload();
    },
  });
}

function drop(net, node, page) {
  const words = "It is cut off everywhere within seconds, permanently: to come back it has to join again, as a new node.";
  const force = checkbox("Also when clients come in there", "force", { hint: "those that have no other gateway are cut off" });
  formDialog(`Remove ${node.name}?`, { submit: "Remove permanently", intro: words, danger: true, fields: node.ingress ? [force] : [],
    async send(form) {
      await remove(nodePath(net, node.name) + query({ force: form.force || undefined }));
      return () => page.go(`#/n/${net}/nodes`);
    },
  });
}
