// The exits of a network: what each offers and to whom, and whose Internet traffic goes where.

import { h } from "../dom.js";
import { get, path } from "../api.js";
import { statusOf } from "../state.js";
import { empty, section, table, tag, titleBar } from "../ui.js";
import { choiceInWords, outcomeBadge, guestsOf, offerInWords, scopesOf, trafficInWords } from "../exits.js";
import { conditionBadge } from "../nodes.js";
import { and } from "../words.js";

export default {
  /** Shows what comes with reports. */
  isLively: true,
  title: () => "Exits",
  load: ({ net }) => get(path`/networks/${net}/exits`),
  draw({ net, data }) {
    const all = statusOf(net)?.nodes ?? [];
    return [titleBar("Exits"), exits(net, all, data), traffic(net, all)];
  },
};

const LEAD = "Routers through which others send their Internet traffic.";

function exits(net, all, views) {
  const byName = new Map(all.map((node) => [node.name, node]));
  const known = views.filter((view) => byName.has(view.node));
  const on = known.filter((view) => view.enabled);
  const could = known.filter((view) => !view.enabled && view.allowed);
  const also = could.length > 0 && h("p", { class: "lead" }, "Allowed by their owners, and not switched on: ", could.map((view, i) => [i > 0 && ", ", link(net, view.node)]), ".");
  if (on.length === 0) return section("Who takes traffic out", { lead: LEAD }, empty("No exit yet. Choose a router with a good uplink, and switch “Be an exit” on there.", also || h("a", { href: `#/n/${net}/nodes` }, "All nodes")));
  const rows = on.map((view) => exitRow(net, all, view, byName.get(view.node)));
  return section("Who takes traffic out", { lead: LEAD }, also, table("Exits", ["Exit", "State", "Offers", "Resolvers", "Going out there"], rows));
}

const link = (net, name) => h("a", { href: `#/n/${net}/nodes/${name}` }, name);

function exitRow(net, all, view, node) {
  const guests = guestsOf(node, all);
  const waiting = (view.used_by ?? []).filter((user) => !user.now).map((user) => `${user.node}: ${user.scope}`);
  const offer = view.allowed === false ? "nothing: the router's owner forbids it (allow_exit)" : node.report ? offerInWords(view, node.report.exit) : "not reported yet";
  return {
    key: node.id, testid: `exit-${node.name}`,
    cells: [
      [link(net, node.name), node.label && h("small", null, node.label)], conditionBadge(node), offer,
      view.dns?.length ? view.dns.map((ip) => h("div", { class: "mono" }, ip)) : "none",
      [guests.length ? guests.map((guest) => h("div", { "data-key": `${guest.node} ${guest.scope}` }, link(net, guest.node), `: ${guest.scope}`)) : "nobody",
        waiting.length > 0 && h("small", null, `stands by for ${and(waiting)}`)],
    ],
  };
}

function traffic(net, all) {
  const rows = all.flatMap((node) => scopesOf(node, all).map(({ name, spec, live }) => ({
    key: `${node.id} ${name}`, testid: `out-${node.name}-${name}`,
    cells: [
      [link(net, node.name), h("small", null, name)],
      spec ? h("div", { class: "chips" }, spec.of.map((of) => tag(trafficInWords(of)))) : "set on the router itself",
      spec ? choiceInWords(spec) : "",
      [outcomeBadge(node, live), live?.why && h("small", null, live.why)],
    ],
  })));
  const lead = "What goes out elsewhere than over its own router's uplink. It is set at the node.";
  return section("Who goes out where", { lead }, rows.length === 0 ? empty("Every router's traffic goes out over its own uplink.") : table("Traffic through exits", ["Router", "Traffic", "Exit", "Now"], rows));
}
