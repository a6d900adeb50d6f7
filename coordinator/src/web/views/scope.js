// The form for traffic that goes through an exit.

import { h } from "../dom.js";
import { Problem, ask, opened, path, save } from "../api.js";
import { announce } from "../ui.js";
import { checkbox, choice, formDialog, nameField, select, text, values, watch } from "../forms.js";
import { isExit, trafficInWords } from "../exits.js";
import { and, several } from "../words.js";

const NEAREST = "*";
const SHUT = "While no exit works this traffic is dropped: nothing of it leaves over the router's own uplink, not even while it boots.";
const OPEN = "While no exit works this traffic goes out over the router's own uplink, and its provider sees it.";

/** Opens the dialog of a scope. `name`: of a scope to be changed, or null for a new one. */
export async function scopeDialog(net, node, all, name, page) {
  const whereOf = (scope) => path`/networks/${net}/nodes/${node.name}/scopes/${scope}`;
  const thing = name && (await opened(whereOf(name)));
  const spec = thing?.data;
  const verdict = h("div", { class: "verdict", "aria-live": "polite", "data-testid": "scope-verdict" });
  const box = formDialog(spec ? `Change ${spec.name}` : "Send traffic through an exit", {
    submit: spec ? "Save" : "Send it", wide: true,
    fields: [
      !spec && nameField("Name", { value: freeName(node), longest: 32, hint: "such as lan, guests, tv" }),
      traffic(node, spec),
      h("div", { class: "halves" }, chain(node, all, spec), h("div", { class: "stack" }, killSwitch(spec),
        checkbox("LANs and the network's sites stay in reach", "allow_lan", { checked: spec?.allow_lan ?? true, hint: "off: even they can't be reached past the exit" }),
        choice("While the exit has no IPv6", "ipv6", [["block", "Block IPv6", "hosts go on with IPv4"], ["wan", "IPv6 over the router's own uplink", "its provider sees it"]], spec?.ipv6 ?? "block"))),
      more(spec),
    ],
    foot: verdict,
    async send(said, form) {
      const wanted = specOf(said, form);
      const name = spec?.name ?? said.name;
      if (wanted.of.length === 0) throw new Problem({ title: "Which traffic?", detail: "Tick at least one line, or name a host or prefix." });
      const isTaken = !spec && (node.scopes ?? []).some((other) => other.name === name);
      if (isTaken) throw new Problem({ title: `There is ${name} already`, detail: "Choose another name, or edit that one." });
      await save(thing ?? { where: whereOf(name) }, "PUT", wanted, page.reload);
      announce(`${node.name} sends ${name} through an exit`);
      await page.reload();
    },
  });
  const form = box.querySelector("form");
  watch(form, verdict, (signal) => check(whereOf, spec, form, signal));
}

async function check(whereOf, spec, form, signal) {
  const said = values(form);
  const wanted = specOf(said, form);
  const name = spec?.name ?? said.name;
  if (!name || wanted.of.length === 0) return { tone: "soft", words: [name ? "Which traffic? Tick at least one line." : "It needs a name."] };
  const { data } = await ask("PUT", `${whereOf(name)}?dry_run=true`, { body: wanted, signal });
  const warnings = data?.warnings ?? [];
  return warnings.length ? { tone: "warn", words: warnings } : { words: [`${name}: ${and(wanted.of.map(trafficInWords))} can go out like this.`] };
}

/** Spec of a scope as the coordinator wants it, from the values of the dialog's fields. */
function specOf({ of = [], others, kill_switch, allow_lan, ipv6, exclude, dns, redirect_dns }, form) {
  const chosen = [...form.querySelectorAll("select[name=exits]")].map((place) => place.value).filter(Boolean);
  return {
    of: [...of, ...several(others)], exits: chosen.filter((name) => name !== NEAREST), auto: chosen.includes(NEAREST),
    kill_switch, allow_lan, ipv6, exclude: several(exclude), dns: several(dns), redirect_dns,
  };
}

function freeName(node) {
  const taken = new Set((node.scopes ?? []).map((scope) => scope.name));
  return ["lan", "guests", "tv"].find((name) => !taken.has(name)) ?? "";
}

/** Fields for a scope's traffic: what the router reported to have, and a field for other traffic. */
function traffic(node, spec) {
  const lans = (node.report?.interfaces ?? []).filter((one) => one.kind === "lan" && !one.name.startsWith("gw-") && one.name !== "lo");
  const fixed = [["all", "Everything", "the router itself and all its LANs"], ["router", "The router itself", "but never its tunnels and its way to the coordinator"]];
  const devices = lans.map((lan) => [`dev:${lan.name}`, `All that comes in over ${lan.name}`, (lan.prefixes ?? []).join(", ")]);
  const prefixes = lans.flatMap((lan) => (lan.prefixes ?? []).map((prefix) => [prefix, prefix, `hosts of ${lan.name} with such an address`]));
  const offered = [...devices, ...prefixes, ...fixed];
  const known = new Set(offered.map(([of]) => of));
  const taken = new Set((node.scopes ?? []).flatMap((scope) => scope.of));
  const first = devices.map(([of]) => of).find((of) => !taken.has(of));
  const isChosen = (of) => (spec ? spec.of.includes(of) : of === first);
  const box = ([of, label, hint]) => h("label", { class: "check" }, h("input", { type: "checkbox", name: "of", value: of, checked: isChosen(of), "aria-label": label, "aria-description": hint }), h("span", null, label, h("small", null, hint)));
  return h("fieldset", { class: "choice" }, h("legend", null, "Which traffic"), h("div", { class: "pairs" }, offered.map(box)),
    text("Others", "others", { value: (spec?.of ?? []).filter((of) => !known.has(of)).join(" "), placeholder: "192.168.10.20 dev:br-guest", hint: "hosts, prefixes or dev:INTERFACE, with spaces between" }));
}

/** Fields for a scope's exits: one select a place in the order; the next shows up once an exit is named. */
function chain(node, all, spec) {
  const exits = all.filter((other) => other.id !== node.id && isExit(other)).map((other) => other.name);
  const places = h("div", { class: "stack" });
  const rest = (chosen) => [...new Set([...exits, ...(spec?.exits ?? [])])].filter((name) => !chosen.includes(name));
  const place = (number, chosen, value) => {
    const last = number === 0 ? [] : [["", "nothing else"]];
    const nearest = [[NEAREST, number === 0 ? "the nearest that works" : "the nearest other that works"]];
    const named = rest(chosen).map((name) => [name, name]);
    const field = select(number === 0 ? "Exit" : number === 1 ? "If that does not work" : "And then", "exits", [...last, ...nearest, ...named], { value, "data-testid": `exit-${number}`,
      hint: number === 0 ? "The nearest: by the time an answer takes. It is left only for one that is clearly nearer, or when it fails." : null });
    field.querySelector("select").addEventListener("change", () => show([...places.querySelectorAll("select")].map((one) => one.value), number + 1));
    return field;
  };
  /** Shows the selects from `from` on; those before stay as they are: one of them has the focus. */
  function show(wanted, from) {
    for (const after of [...places.children].slice(from)) after.remove();
    const chosen = wanted.slice(0, from);
    for (let number = from; chosen.at(-1) !== NEAREST && chosen.at(-1) !== ""; number += 1) {
      const isFree = wanted[number] && !chosen.includes(wanted[number]);
      const value = isFree ? wanted[number] : number === 0 ? NEAREST : "";
      places.append(place(number, chosen, value));
      chosen.push(value);
    }
  }
  show(spec ? [...(spec.exits ?? []), ...(spec.auto ? [NEAREST] : [])] : [NEAREST], 0);
  return places;
}

function killSwitch(spec) {
  const isOn = spec?.kill_switch ?? true;
  const words = h("small", { "aria-live": "polite" }, isOn ? SHUT : OPEN);
  const input = h("input", { type: "checkbox", role: "switch", name: "kill_switch", checked: isOn, "aria-label": "Kill switch", "data-testid": "kill-switch" });
  input.addEventListener("change", () => (words.textContent = input.checked ? SHUT : OPEN));
  return h("label", { class: "toggle" }, input, h("span", { class: "track", "aria-hidden": "true" }), h("span", null, "Kill switch", words));
}

function more(spec) {
  const isUsed = spec && (spec.exclude?.length || spec.dns?.length || spec.redirect_dns === false);
  return h("details", { class: "more", open: Boolean(isUsed) }, h("summary", null, "DNS and exceptions"),
    checkbox("DNS goes through the exit, too", "redirect_dns", { checked: spec?.redirect_dns ?? true, hint: "its hosts' queries go to the exit's resolver, whichever they ask. Off: they go where they are sent" }),
    text("Resolvers", "dns", { value: (spec?.dns ?? []).join(" "), placeholder: "9.9.9.9", hint: "instead of the exit's own, with spaces between" }),
    text("Not through the exit", "exclude", { value: (spec?.exclude ?? []).join(" "), placeholder: "203.0.113.0/24", hint: "prefixes that are reached over the router's own uplink as before, with spaces between" }));
}
