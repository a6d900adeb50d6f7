// Join codes: what a router shows to get in.

import { h } from "../dom.js";
import { list, path, post, remove } from "../api.js";
import { mayChange, statusOf } from "../state.js";
import { act, announce, badge, button, empty, section, snippet, table, titleBar } from "../ui.js";
import { checkbox, dialog, formDialog, select, text } from "../forms.js";
import { and, span } from "../words.js";

const TONES = { usable: "good", used: "quiet", expired: "quiet", revoked: "bad" };
const LIFETIMES = [["3600", "1 hour"], ["86400", "1 day"], ["604800", "1 week"], ["2592000", "30 days"]];
const ROLES = [["egress", "Egress", "lets the network reach prefixes behind it"], ["ingress", "Ingress", "lets phones and laptops in"], ["exit", "Exit", "takes Internet traffic of others"]];

export default {
  title: () => "Join codes",
  load: ({ net }) => list(path`/networks/${net}/codes`),
  draw({ net, data, page }) {
    const make = mayChange() && button("New join code", () => newCode(net, page), { kind: "primary", symbol: "plus" });
    const codes = [...data].reverse();
    return [
      titleBar("Join codes", { actions: make }),
      codes.length === 0
        ? empty("No code yet. A router joins with one command and a code; the code is shown once, when it is created.")
        : section("Codes", { lead: "A code itself is shown only once, when it is created. Routers that have joined with it stay when it is revoked." },
          table("Join codes", ["Code", "State", "Joined", "May do", ""], codes.map((code) => row(net, code, page)))),
    ];
  },
};

function row(net, code, page) {
  const revoke = (event) => act(event.currentTarget, async () => {
    await remove(path`/networks/${net}/codes/${code.id}`);
    await page.reload();
  });
  return {
    key: code.id,
    cells: [
      h("code", null, code.id),
      [badge(TONES[code.state] ?? "quiet", code.state), code.state === "usable" && h("small", null, `for ${span(code.expires_in)} more`)],
      `${code.used} of ${code.uses}`,
      and([...code.roles]) || "nothing for others",
      code.state === "usable" && mayChange() ? h("div", { class: "right" }, button("Revoke", revoke, { kind: "danger", class: "button danger small", "aria-label": `Revoke code ${code.id}` })) : "",
    ],
  };
}

/** Makes a code and shows how to use it, then who joins with it. */
export function newCode(net, page) {
  formDialog("Add a router", {
    submit: "Create the code",
    intro: `The code lets a router join ${net}. Paste the command that you will see on the router.`,
    fields: [
      h("div", { class: "inline" },
        text("For how many routers", "uses", { type: "number", min: 1, max: 1000, required: true, value: "1" }),
        select("Can be used for", "expires_in", LIFETIMES, { value: "86400" })),
      h("fieldset", { class: "choice" }, h("legend", null, "What they may do for others"),
        ROLES.map(([role, words, hint]) => checkbox(words, "roles", { value: role, checked: true, hint }))),
    ],
    async send({ uses, expires_in, roles }) {
      const made = await post(path`/networks/${net}/codes`, { uses: Number(uses), expires_in: Number(expires_in), roles });
      page.reload();
      return () => show(net, made);
    },
  });
}

function show(net, made) {
  const known = new Set((statusOf(net)?.nodes ?? []).map((node) => node.id));
  const news = h("div", { class: "stack", "aria-live": "polite", "data-testid": "joined" });
  let timer = 0;
  let said = "";
  const look = () => {
    const joined = (statusOf(net)?.nodes ?? []).filter((node) => !known.has(node.id));
    const now = joined.map((node) => `${node.name} ${node.online}`).join();
    if (now !== said || !news.firstChild) {
      said = now;
      news.replaceChildren(...(joined.length ? joined.map((node) => joinedLine(net, node)) : [h("p", { class: "wait" }, "Waiting for a router to join…")]));
    }
    timer = setTimeout(look, 300);
  };
  dialog("Paste this on the router", (close) => h("div", { class: "stack" },
    h("p", { class: "lead" }, "Type it as root, over SSH. The keys are made on the router and never leave it."),
    snippet(`gatewrt join ${made.code}`, { name: "Command for the router", label: "Copy command", testid: "join-command" }),
    h("details", { class: "more" }, h("summary", null, "The code alone"), snippet(made.code, { name: "Join code", label: "Copy code", testid: "join-code" })),
    h("div", { class: "note" }, h("div", null, h("strong", null, "Shown only here."), h("p", null, `Whoever has it can join. It is valid for ${span(made.expires_in)} and ${made.uses === 1 ? "one router" : `${made.uses} routers`}.`))),
    news, h("div", { class: "buttons" }, button("Done", close, { kind: "primary" }))), { onclose: () => clearTimeout(timer) });
  look();
  announce("The join code was created");
}

function joinedLine(net, node) {
  return h("p", { class: "rowline" }, badge(node.online ? "good" : "info", node.online ? "online" : "joined"),
    h("a", { href: `#/n/${net}/nodes/${node.name}`, onclick: (event) => event.currentTarget.closest("dialog").close() }, node.name), node.board);
}
