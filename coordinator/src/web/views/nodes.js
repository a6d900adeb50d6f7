// The nodes of a network and how each is now.

import { h } from "../dom.js";
import { mayChange, statusOf } from "../state.js";
import { button, empty, table, tag, titleBar } from "../ui.js";
import { conditionBadge, failuresOf, pathsInWords, rolesOf } from "../nodes.js";
import { newCode } from "./codes.js";

let wanted = "";

export default {
  title: () => "Nodes",
  load: () => null,
  draw({ net, page }) {
    const nodes = statusOf(net)?.nodes ?? [];
    const add = mayChange() && button("Add a router", () => newCode(net, page), { kind: "primary", symbol: "plus" });
    const title = titleBar("Nodes", { actions: [nodes.length > 8 && search(page), add] });
    if (nodes.length === 0) return [title, empty("No router has joined yet. Make a join code and paste it on the router.")];
    const shown = nodes.filter((node) => fits(node, wanted));
    return [title, h("div", { class: "card" }, table("Nodes", ["Name", "State", "Serves", "Paths", "Router", "Version"], shown.map((node) => row(net, node, nodes)), { class: "scroll flush" })),
      shown.length === 0 && h("p", { class: "wait" }, "No node fits this search.")];
  },
};

function search(page) {
  const oninput = (event) => {
    wanted = event.currentTarget.value.trim().toLowerCase();
    page.draw();
  };
  return h("input", { type: "search", class: "search", placeholder: "Search", "aria-label": "Search nodes", value: wanted, oninput });
}

function fits(node, text) {
  const all = [node.name, node.label ?? "", node.board, ...(node.tags ?? []), ...node.addresses, ...node.egress.map((egress) => egress.prefix)];
  return all.some((word) => word.toLowerCase().includes(text));
}

function row(net, node, all) {
  return {
    key: node.id,
    testid: `node-${node.name}`,
    cells: [
      [h("a", { href: `#/n/${net}/nodes/${node.name}` }, node.name), node.label && h("small", null, node.label), node.addresses.map((address) => h("small", { class: "mono still" }, address))],
      [conditionBadge(node), node.online && failuresOf(node)],
      serves(node),
      pathsInWords(node, all),
      [node.board, (node.tags?.length ?? 0) > 0 && h("div", { class: "chips" }, node.tags.map(tag))],
      node.version,
    ],
  };
}

function serves(node) {
  const parts = rolesOf(node);
  if (parts.length === 0) return "";
  return [node.egress.map((egress) => h("div", { class: "mono" }, egress.prefix)), node.ingress && h("div", null, "clients (ingress)"), node.exit && h("div", null, "Internet traffic (exit)")];
}
