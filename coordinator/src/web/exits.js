// Exits and the traffic that goes out through them, in words. Pure, but for the badges.

import { badge } from "./ui.js";
import { and } from "./words.js";

/** Address families of an exit in words: of an ExitView, or of the offer in a report. */
export function familiesOf({ v4, v6 }) {
  if (v4 && v6) return "IPv4 and IPv6";
  if (v4) return "IPv4 only";
  return v6 ? "IPv6 only" : "nothing";
}

/** Address families of an exit in words, with what is missing. `offer`: what its uplink has, which an admin may have narrowed. */
export function offerInWords(exit, offer) {
  const lacking = [["v4", "IPv4"], ["v6", "IPv6"]].filter(([family]) => !exit[family]);
  const absent = lacking.filter(([family]) => !offer?.[family]).map(([, name]) => name);
  if (lacking.length === 0) return familiesOf(exit);
  return `${familiesOf(exit)}: ${absent.length ? `the uplink has no ${and(absent)}` : `${and(lacking.map(([, name]) => name))} is switched off`}`;
}

/** Scopes of a router, those that an admin set and those that its owner did: { name, spec, live }. */
export function scopesOf(node, all) {
  const names = new Map(all.map((other) => [other.id, other.name]));
  const reported = new Map((node.report?.scopes ?? []).map((live) => [live.name, { ...live, exit: live.exit && (names.get(live.exit) ?? live.exit) }]));
  const wanted = (node.scopes ?? []).map((spec) => ({ name: spec.name, spec, live: reported.get(spec.name) }));
  const own = (node.own_scopes ?? []).map(({ name, live }) => ({ name, live: reported.get(name) ?? live }));
  return [...wanted, ...own];
}

/** Outcome for a scope's traffic now: { tone, text }. */
export function outcome(node, live) {
  if (!node.online) return { tone: "quiet", text: "router is offline" };
  if (!live) return { tone: "quiet", text: "not reported yet" };
  if (live.state === "exit") return { tone: "good", text: `through ${live.exit ?? "an exit"}${live.rtt_ms === undefined ? "" : `, ${live.rtt_ms} ms`}` };
  if (live.state === "blocked") return { tone: "bad", text: "blocked: no exit answers" };
  if (live.state === "wan") return { tone: "warn", text: "out over the WAN: kill switch is off" };
  return { tone: "quiet", text: live.state };
}

export function outcomeBadge(node, live) {
  const { tone, text } = outcome(node, live);
  return badge(`${tone} outcome`, text, { "data-testid": "outcome" });
}

/** Traffic of a scope in words: of `all`, `router`, `dev:br-lan` or a prefix. */
export function trafficInWords(of) {
  if (of === "all") return "everything";
  if (of === "router") return "the router itself";
  return of.startsWith("dev:") ? `what comes in over ${of.slice(4)}` : of.replace(/\/(32|128)$/, "");
}

/** Exits of a scope in words, in their order: "office, then the nearest other" */
export function choiceInWords({ exits = [], auto }) {
  const nearest = exits.length ? "the nearest other" : "the nearest";
  return [...exits, ...(auto ? [nearest] : [])].join(", then ") || "none";
}

/** Scopes whose traffic goes out at this node, as their nodes report: { node, scope }. */
export function guestsOf(node, all) {
  return all.filter((other) => other.online).flatMap((other) => (other.report?.scopes ?? [])
    .filter((live) => live.state === "exit" && live.exit === node.id).map((live) => ({ node: other.name, scope: live.name })));
}

/** Pairs of nodes with traffic through an exit: { from, to, names } with the scopes' names. */
export function flowsOf(all) {
  return all.flatMap((to) => all.map((from) => ({ from, to, names: guestsOf(to, [from]).map((guest) => guest.scope) }))).filter((flow) => flow.names.length > 0);
}

/** Nodes that an admin made exits. */
export const isExit = (node) => Boolean(node.exit);
