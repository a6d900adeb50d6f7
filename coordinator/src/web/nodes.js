// State of a node in words. Pure, but for the badges.

import { h } from "./dom.js";
import { badge } from "./ui.js";
import { ago, count, span } from "./words.js";

/** Condition of a node, the one thing to know about it: { tone, text }. */
export function condition(node) {
  if (!node.online) return { tone: "bad", text: node.for_s === undefined ? "offline" : `offline for ${span(node.for_s)}` };
  if (node.report?.failures?.length) return { tone: "warn", text: `${count(node.report.failures.length, "thing")} failed` };
  if (node.rolled_back) return { tone: "warn", text: "rolled back a change" };
  if (!node.up_to_date) return { tone: "info", text: node.report ? "applying" : "waiting for its report" };
  return { tone: "good", text: "online" };
}

export function conditionBadge(node) {
  const { tone, text } = condition(node);
  return badge(tone, text, { "data-testid": "condition" });
}

/** Roles that a node has now. */
export function rolesOf(node) {
  return [...(node.egress.length ? ["egress"] : []), ...(node.ingress ? ["ingress"] : []), ...(node.exit ? ["exit"] : [])];
}

export const mayDo = (node, role) => node.roles.includes(role);

/** Peers of a node as it reported them, with names: { name, path, endpoint, handshake, rx, tx, rtt }. */
export function peersOf(node, all) {
  const names = new Map(all.map((other) => [other.id, other.name]));
  const age = node.report_age_s ?? 0;
  const peers = (node.report?.peers ?? []).filter((peer) => names.has(peer.node));
  return peers.map((peer) => ({
    ...peer,
    name: names.get(peer.node),
    handshake: peer.handshake_s === undefined ? undefined : peer.handshake_s + age,
    rtt: peer.rtt_ms,
  })).sort((one, other) => one.name.localeCompare(other.name));
}

const PATHS = { direct: ["good", "direct"], down: ["bad", "down"], relay: ["info", "by relay"], relayed: ["info", "by relay"] };

export function pathBadge(path) {
  const [tone, text] = PATHS[path] ?? ["quiet", path];
  return badge(tone, text);
}

/** Paths of a node to its peers in words: "2 direct, 1 down" */
export function pathsInWords(node, all) {
  const peers = peersOf(node, all);
  if (!node.online || peers.length === 0) return "";
  const direct = peers.filter((peer) => peer.path === "direct").length;
  const down = peers.filter((peer) => peer.path === "down").length;
  const other = peers.length - direct - down;
  return [direct && `${direct} direct`, other && `${other} by relay`, down && `${down} down`].filter(Boolean).join(", ");
}

/** State of the tunnel between two nodes, as those that are online report it: `direct`, `relay`, `down`, `unknown`. */
export function tunnel(one, other) {
  const said = [[one, other], [other, one]]
    .filter(([from]) => from.online)
    .map(([from, to]) => from.report?.peers?.find((peer) => peer.node === to.id)?.path)
    .filter(Boolean);
  return said.find((path) => path !== "down") ?? said[0] ?? (one.online && other.online ? "unknown" : "down");
}

export const handshake = (age) => (age === undefined ? "never" : ago(age));

/** List of the failures that a node reported last. Those of a node that is offline may be over. */
export function failuresOf(node) {
  const failures = node.report?.failures ?? [];
  return failures.length > 0 && h("ul", { class: "stack" }, failures.map((failure) => h("li", null, h("strong", null, failure.what), ": ", failure.why)));
}
