// A node's Internet traffic: its scopes with their exits and current state, and the last rollback.

import { h } from "../dom.js";
import { path, post, remove } from "../api.js";
import { mayChange, nodePath } from "../state.js";
import { act, announce, button, empty, icon, section, sentence, slot, table, tag } from "../ui.js";
import { confirm } from "../forms.js";
import { choiceInWords, outcomeBadge, isExit, scopesOf, trafficInWords } from "../exits.js";
import { count } from "../words.js";
import { scopeDialog } from "./scope.js";

const LEAD = "What of this router's Internet traffic goes out through another router (exit client). All else goes out over its own uplink.";

export function trafficCard(net, node, all, page) {
  const scopes = scopesOf(node, all);
  const exits = all.filter((other) => other !== node && isExit(other));
  const add = mayChange() && button("Send traffic through an exit", () => scopeDialog(net, node, all, null, page), { symbol: "plus", kind: scopes.length ? "plain" : "primary" });
  if (scopes.length === 0) {
    return section("Internet traffic", { lead: LEAD }, exits.length === 0
      ? empty("No other router of this network is an exit yet: switch “Be an exit” on at the router through which others are to go out.", h("a", { href: `#/n/${net}/exits` }, "Exits"))
      : empty("All of it goes out over this router's own uplink.", add));
  }
  const rows = scopes.map((scope) => row(net, node, all, scope, page));
  return section("Internet traffic", { lead: LEAD, actions: add }, table("Internet traffic", ["Name", "Traffic", "Exit", "Now", ""], rows));
}

function row(net, node, all, scope, page) {
  const { name, spec, live } = scope;
  return {
    key: name, testid: `scope-${name}`,
    cells: [
      name,
      spec ? h("div", { class: "chips" }, spec.of.map((of) => tag(trafficInWords(of)))) : "set on the router itself",
      spec ? [choiceInWords(spec), h("small", null, spec.kill_switch === false ? "or else over the WAN" : "or else blocked")] : "",
      [outcomeBadge(node, live), live?.why && h("small", null, live.why), warned(spec?.warnings ?? [])],
      spec && mayChange() ? h("div", { class: "right still" },
        button("Edit", () => scopeDialog(net, node, all, name, page), { class: "button quiet small", "aria-label": `Edit ${name}` }),
        button("Delete", () => drop(net, node, spec, page), { class: "button danger small", "aria-label": `Delete ${name}` })) : "",
    ],
  };
}

/** Warnings about exits, folded: there may be several for each exit. */
function warned(warnings) {
  return warnings.length > 0 && h("details", { class: "more warnings", "data-key": "warnings" }, h("summary", null, count(warnings.length, "warning")), warnings.map((warning) => h("small", { class: "surprise" }, sentence(warning))));
}

function drop(net, node, spec, page) {
  confirm(`Stop sending ${spec.name} through an exit?`, `From then on ${spec.of.map(trafficInWords).join(", ")} goes out over ${node.name}'s own uplink, and its provider sees it.`, "Stop it", async () => {
    await remove(path`/networks/${net}/nodes/${node.name}/scopes/${spec.name}`);
    await page.reload();
  });
}

/** Note about a change that the router rolled back by itself, because it lost its control link. */
export function rolledBack(net, node, page) {
  const back = node.rolled_back;
  if (!back) return null;
  const retry = (event) => act(event.currentTarget, async () => {
    await post(`${nodePath(net, node.name)}/retry`);
    announce(`${node.name} retries the change`);
    await page.reload();
  });
  return h("section", { class: "note", "aria-label": "Rolled back", "data-key": "rolled back", "data-slot": "", "data-testid": "rolled-back" }, icon("warn"), h("div", { class: "stack" },
    h("div", null, h("strong", null, "The router rolled back the last change"), h("p", null, sentence(back.why)),
      h("p", null, "It keeps the settings from before the change, and does not retry by itself.")),
    slot(),
    mayChange() && h("div", { class: "chips" }, button("Try again", retry))));
}
