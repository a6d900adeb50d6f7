// Tokens and their rights.

import { h } from "../dom.js";
import { list, path, post, remove } from "../api.js";
import { mayChange, state } from "../state.js";
import { badge, button, empty, icon, section, snippet, table, titleBar } from "../ui.js";
import { choice, confirm, dialog, formDialog, select, text } from "../forms.js";
import { moment, span } from "../words.js";

/** Name of the token in the file of the coordinator's directory. */
const ADMIN_TOKEN = "admin.token";
const LIFETIMES = [["", "never"], ["86400", "1 day"], ["2592000", "30 days"], ["31536000", "1 year"]];

export default {
  title: () => "Tokens",
  load: () => list("/tokens"),
  draw({ data, page }) {
    const add = mayChange() && button("New token", () => create(page), { kind: "primary", symbol: "plus" });
    const title = titleBar("Tokens", { actions: add });
    const lead = "A token logs in here; scripts send it as “Authorization: Bearer”. The coordinator stores only a hash.";
    const lonely = data.every((token) => token.name === ADMIN_TOKEN) && empty("Only the token in the coordinator's directory, admin.token. Create one for each person and script, so that the log says who did what.");
    return [title, lonely, section("Who may log in", { lead }, table("Tokens", ["Name", "Rights", "Network", "Expires", ""], data.map((token) => row(token, page))))];
  },
};

function row(token, page) {
  const loss = token.name === ADMIN_TOKEN ? " Only root on the coordinator's machine can make a new one: gatewrt-coordinator token reset-admin." : "";
  const revoke = () => confirm(`Revoke the token ${token.name}?`, `Whoever uses it is logged out at once.${loss}`, "Revoke it", async () => {
    await remove(path`/tokens/${token.id}`);
    await page.reload();
  });
  return { key: `${token.id}`, testid: `token-${token.name}`, cells: [
    token.name, badge(token.rights === "admin" ? "info" : "quiet", token.rights === "admin" ? "may change" : "read only"), token.network ?? "all",
    token.expires ? [moment(token.expires), !token.valid && badge("warn", "expired")] : "never",
    mayChange() ? h("div", { class: "right" }, button("Revoke", revoke, { class: "button danger small", "aria-label": `Revoke token ${token.name}` })) : "",
  ] };
}

function create(page) {
  const networks = [["", "all networks"], ...state.networks.map((network) => [network.name, network.name])];
  formDialog("New token", {
    submit: "Create the token",
    fields: [
      text("Name", "name", { required: true, maxlength: 64, "data-first": true, wrong: "say whose it is", hint: "whose it is: it stands in the log" }),
      choice("Rights", "rights", [["read", "Read only", "sees all, changes nothing"], ["admin", "May change", "everything, also who may log in"]], "read"),
      select("For", "network", networks), select("Expires after", "expires_in", LIFETIMES),
    ],
    async send({ name, rights, network, expires_in }) {
      const made = await post("/tokens", { name, rights, ...(network && { network }), ...(expires_in && { expires_in: Number(expires_in) }) });
      await page.reload();
      return () => show(made, expires_in);
    },
  });
}

function show(made, expires) {
  dialog(`Token for ${made.name}`, (close) => h("div", { class: "stack" },
    h("div", { class: "note" }, icon("warn"), h("div", null, h("strong", null, "Shown only now."), h("p", null, `Whoever has it may log in${expires ? ` for ${span(Number(expires))}` : ""}.`))),
    snippet(made.token, { name: "Token", testid: "token" }),
    h("div", { class: "buttons" }, button("Done", close, { kind: "primary" }))), { firm: true });
}
