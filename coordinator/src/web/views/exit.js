// A node as an exit: whether it takes others' Internet traffic out, what it has to offer, and who goes out there.

import { h } from "../dom.js";
import { put, remove } from "../api.js";
import { mayChange, nodePath } from "../state.js";
import { button, facts, icon, section, snippet, toggle } from "../ui.js";
import { checkbox, confirm, formDialog, text } from "../forms.js";
import { guestsOf, isExit, offerInWords } from "../exits.js";
import { mayDo } from "../nodes.js";
import { several } from "../words.js";

/** Command by which the owner of a router allows it to be an exit; UCI has no “-” in a section's name. */
const allow = (section) => `uci set gatewrt.${section}=network; uci set gatewrt.${section}.allow_exit=1; uci commit gatewrt; reload_config`;

/** Card of a node as an exit. `view`: its ExitView, if there is one. */
export function exitCard(net, node, all, view, page) {
  const lead = "Takes Internet traffic of other routers out (exit).";
  if (!mayDo(node, "exit")) return section("Exit", { lead }, h("p", { class: "lead" }, "The join code of this node does not allow it to be an exit."));
  const where = `${nodePath(net, node.name)}/exit`;
  const isOn = view?.enabled ?? isExit(node);
  const change = async (on) => {
    try {
      await (on ? put(where, {}) : remove(where));
    } catch (error) {
      if (error.type !== "in-use") throw error;
      cutOff(node, where, error, page);
      // The switch goes back meanwhile.
      throw new DOMException("asked first", "AbortError");
    }
    await page.reload();
  };
  return section("Exit", { lead, actions: isOn && mayChange() && button("Settings", () => edit(where, view, page), { symbol: "edit", "aria-label": "Exit settings" }) },
    toggle("Be an exit", isOn, change, { disabled: !mayChange(), "data-testid": "exit", hint: isOn ? null : "Nobody goes out here until traffic is sent through it." }),
    view?.allowed === false && forbidden(net, node, isOn),
    facts(...offer(net, node, all, view, isOn)));
}

/** Opens a dialog that asks before cutting off scopes that have no other exit. */
function cutOff(node, where, { title }, page) {
  confirm(`Take no more traffic at ${node.name}?`, `${title}. It is dropped then, or goes out over its own router's uplink where the kill switch is off.`, "Cut it off", async () => {
    await remove(`${where}?force=true`);
    await page.reload();
  });
}

function forbidden(net, node, isOn) {
  const command = snippet(allow(net.replaceAll("-", "_")), { name: "Command for the router" });
  if (!isOn) return h("details", { class: "more", "data-key": "forbidden", "data-testid": "exit-forbidden" }, h("summary", null, "The router's owner forbids it: allow_exit"), command);
  return h("div", { class: "note", "data-key": "forbidden on", "data-testid": "exit-forbidden" }, icon("warn"), h("div", { class: "stack" },
    h("div", null, h("strong", null, "The router's owner forbids it: allow_exit"), h("p", null, `It is off on the router, whatever is said here. Its owner allows it on ${node.name} with:`)),
    command));
}

function offer(net, node, all, view, isOn) {
  const has = node.report?.exit;
  if (!isOn) return has ? [["Its uplink", offerInWords(has, has)]] : [];
  if (!view || view.allowed === false) return [];
  const guests = guestsOf(node, all);
  return [
    ["Offers", node.report ? offerInWords(view, has) : "not reported yet"],
    ["Resolvers", view.dns?.length ? view.dns.map((ip) => h("p", { class: "mono" }, ip)) : "none"],
    ["Going out here", guests.length ? guests.map((guest) => h("p", { "data-key": `${guest.node} ${guest.scope}` }, h("a", { href: `#/n/${net}/nodes/${guest.node}` }, guest.node), `: ${guest.scope}`)) : "nobody"],
  ];
}

function edit(where, view, page) {
  const family = (label, name) => checkbox(label, name, { checked: view?.[`${name}_wanted`] ?? true, hint: "where the uplink has it" });
  formDialog("What this exit offers", {
    submit: "Save",
    fields: [
      text("Resolvers", "dns", { value: (view?.dns_wanted ?? []).join(" "), placeholder: "9.9.9.9 2620:fe::fe", "data-first": true, hint: "who asks through this exit asks these; with spaces between. Empty: those of its uplink" }),
      family("IPv4", "v4"), family("IPv6", "v6"),
    ],
    async send({ dns, v4, v6 }) {
      await put(where, { dns: several(dns), v4, v6 });
      await page.reload();
    },
  });
}
