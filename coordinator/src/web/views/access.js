// Access: the default, the rules, the groups, and the check "can X reach Y, and why".

import { h } from "../dom.js";
import { Problem, get, list, opened, patch, path, post, query, remove, save } from "../api.js";
import { mayChange, statusOf } from "../state.js";
import { act, badge, button, empty, section, slot, table, tag, titleBar, toggle } from "../ui.js";
import { checkbox, choice, confirm, formDialog, nameField, text } from "../forms.js";
import { count, several } from "../words.js";

export default {
  title: () => "Access",
  async load({ net }) {
    const [network, rules, groups, clients] = await Promise.all([
      get(path`/networks/${net}`), list(path`/networks/${net}/rules`), list(path`/networks/${net}/groups`),
      list(path`/networks/${net}/clients`).catch(() => []),
    ]);
    return { network, rules, groups, clients };
  },
  draw({ net, data, question, page }) {
    return [
      titleBar("Access"),
      names(net, data),
      defaults(data.network, page),
      check(net, question),
      rules(net, data.rules, page),
      groups(net, data.groups, page),
    ];
  },
};

/** Lists of suggestions for every field that takes a selector. */
function names(net, { groups, clients }) {
  const nodes = statusOf(net)?.nodes ?? [];
  const tags = new Set([...nodes, ...clients].flatMap((one) => one.tags ?? []));
  const all = ["all", ...nodes.map((node) => `node:${node.name}`), ...nodes.filter((node) => node.egress.length).map((node) => `site:${node.name}`),
    ...clients.map((client) => `client:${client.name}`), ...groups.map((group) => `group:${group.name}`), ...[...tags].sort().map((name) => `tag:${name}`)];
  return h("datalist", { id: "selectors" }, all.map((value) => h("option", { value })));
}

function defaults(network, page) {
  const isOpen = network.access !== "deny";
  const change = async (open) => {
    await patch(path`/networks/${network.name}`, { access: open ? "allow" : "deny" });
    await page.reload();
  };
  return section("Default", { lead: "It decides on connections that match no rule. A rule that refuses takes precedence over one that allows." },
    toggle("Allow", isOpen, change, { disabled: !mayChange(), hint: isOpen ? "Everyone reaches everything that no rule refuses." : "Nothing passes that no rule allows.", "data-testid": "default-access" }));
}

/** Form of the access check. It is kept over drawings, so that an answer stays to be read. */
function check(net, question) {
  const field = (label, name, hint) => text(label, name, { list: "selectors", required: true, value: question[name] ?? "", placeholder: hint, "data-testid": `check-${name}` });
  const answer = h("div", { "aria-live": "polite", "data-testid": "check-answer" });
  const submit = h("button", { type: "submit", class: "button primary" }, h("span", null, "Check"));
  const onsubmit = (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const asked = Object.fromEntries(["from", "to", "service"].map((name) => [name, form.elements[name].value.trim()]));
    const missing = ["from", "to"].find((name) => !asked[name]);
    if (missing) return form.elements[missing].focus();
    answer.replaceChildren();
    act(submit, async () => answer.replaceChildren(verdict(await get(path`/networks/${net}/check` + query(asked)))));
  };
  return section("Can X reach Y?", { lead: "The answer comes from the rules as they are now." },
    h("form", { class: "form", onsubmit, "data-keep": "", "data-key": "check", "data-slot": "", "aria-label": "Check access" },
      h("div", { class: "inline" }, field("From", "from", "a phone, a node, an address"), field("To", "to", "192.168.10.5"), text("Service", "service", { placeholder: "any, or tcp/443", "data-testid": "check-service" }), submit),
      slot(), answer));
}

function verdict({ allowed, why, steps = [] }) {
  return h("div", { class: `verdict-box ${allowed ? "good" : "bad"}` },
    h("p", null, badge(allowed ? "good" : "bad", allowed ? "yes" : "no"), " ", h("strong", null, why)),
    steps.length > 0 && h("ol", { class: "steps" }, steps.map((step) => h("li", null, step))));
}

function rules(net, all, page) {
  const add = mayChange() && button("Add a rule", () => ruleDialog(net, null, page), { kind: "primary", symbol: "plus" });
  const lead = "Rules select nodes, clients, sites, tags, groups and prefixes; the routers enforce them.";
  if (all.length === 0) return section("Rules", { actions: add, lead }, empty("No rule yet: the default above decides everything."));
  return section("Rules", { actions: add, lead }, table("Access rules", ["Verdict", "From", "To", "Services", "On", ""], all.map((rule) => ruleRow(net, rule, page))));
}

function ruleRow(net, rule, page) {
  const where = path`/networks/${net}/rules/${rule.id}`;
  const words = inWords(rule);
  const switchTo = async (enabled) => {
    await patch(where, { enabled });
    await page.reload();
  };
  const drop = () => confirm("Delete this rule?", words, "Delete", async () => {
    await remove(where);
    await page.reload();
  });
  return {
    key: `${rule.id}`, testid: `rule-${rule.id}`, class: rule.enabled ? null : "off",
    cells: [
      [badge(rule.verdict === "allow" ? "good" : "bad", rule.verdict), rule.note && h("small", null, rule.note), surprises(rule)],
      chips(rule.from), chips(rule.to), rule.services?.length ? chips(rule.services) : "every service",
      toggle(`Rule on: ${words}`, rule.enabled, switchTo, { hideLabel: true, disabled: !mayChange() }),
      mayChange() ? h("div", { class: "right" }, button("Edit", () => ruleDialog(net, rule, page), { class: "button quiet small", "aria-label": `Edit rule: ${words}` }), button("Delete", drop, { class: "button danger small", "aria-label": `Delete rule: ${words}` })) : "",
    ],
  };
}

/** Warnings about a rule or a group, as lines. */
const surprises = ({ warnings = [] }) => warnings.map((warning) => h("small", { class: "surprise" }, warning));

const chips = (words) => h("div", { class: "chips" }, words.map(tag));

function inWords({ verdict, from, to, services = [] }) {
  return `${verdict} ${from.join(", ")} to ${to.join(", ")}${services.length ? `, ${services.join(", ")}` : ""}`;
}

const SELECTORS = "all, node:N, site:N, client:C, tag:T, group:G, or an address or prefix; several with spaces between";

async function ruleDialog(net, rule, page) {
  const thing = rule && (await opened(path`/networks/${net}/rules/${rule.id}`));
  const data = thing?.data ?? { verdict: "allow", from: [], to: [], services: [], enabled: true, note: "" };
  const selectors = (label, name, more) => text(label, name, { value: data[name].join(" "), required: true, list: "selectors", wrong: `say ${label.toLowerCase()} what`, hint: SELECTORS, ...more });
  formDialog(rule ? "Edit rule" : "Add a rule", {
    submit: rule ? "Save" : "Add it",
    fields: [
      choice("Verdict on new connections", "verdict", [["allow", "Allow"], ["deny", "Refuse", "wins over every rule that allows"]], data.verdict),
      selectors("From", "from", { "data-first": true }), selectors("To", "to"),
      text("Services", "services", { value: (data.services ?? []).join(" "), placeholder: "tcp/443 udp/5000-5010 icmp", hint: "empty: every service" }),
      text("Note", "note", { value: data.note ?? "", maxlength: 256, hint: "for people: why this rule is there", spellcheck: "true" }),
      checkbox("On", "enabled", { checked: data.enabled }),
    ],
    async send({ verdict, from, to, services, note, enabled }) {
      const spec = { verdict, from: several(from), to: several(to), services: several(services), note, enabled };
      await (thing ? save(thing, "PATCH", spec, page.reload) : post(path`/networks/${net}/rules`, spec));
      await page.reload();
    },
  });
}

function groups(net, all, page) {
  const add = mayChange() && button("Add a group", () => groupDialog(net, all, null, page), { symbol: "plus" });
  const lead = "A group is a name for several selectors.";
  if (all.length === 0) return section("Groups", { actions: add, lead });
  const rows = all.map((group) => ({
    key: group.name, testid: `group-${group.name}`,
    cells: [[`group:${group.name}`, surprises(group)], chips(group.members), group.used_by.length ? count(group.used_by.length, "rule") : "no rule",
      mayChange() ? h("div", { class: "right" }, button("Edit", () => groupDialog(net, all, group, page), { class: "button quiet small", "aria-label": `Edit group ${group.name}` }),
        button("Delete", (event) => act(event.currentTarget, async () => {
          await remove(path`/networks/${net}/groups/${group.name}`);
          await page.reload();
        }), { class: "button danger small", "aria-label": `Delete group ${group.name}` })) : ""],
  }));
  return section("Groups", { actions: add, lead }, table("Groups", ["Name", "Members", "Used by", ""], rows));
}

async function groupDialog(net, all, group, page) {
  const whereOf = (name) => path`/networks/${net}/groups/${name}`;
  const thing = group && (await opened(whereOf(group.name)));
  formDialog(group ? `Edit group ${group.name}` : "Add a group", {
    submit: "Save",
    fields: [
      !group && nameField("Name", { "data-first": true }),
      text("Members", "members", { value: (thing?.data.members ?? []).join(" "), required: true, list: "selectors", wrong: "name at least one member", hint: SELECTORS }),
    ],
    async send({ name, members }) {
      const isTaken = !group && all.some((other) => other.name === name);
      if (isTaken) throw new Problem({ title: `There is a group ${name} already`, detail: "Choose another name, or edit that group." });
      await save(thing ?? { where: whereOf(name) }, "PUT", { members: several(members) }, page.reload);
      await page.reload();
    },
  });
}
