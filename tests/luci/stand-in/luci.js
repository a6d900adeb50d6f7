// A thin stand-in for LuCI's runtime, which no registry has: as much of `L`, `E`, `rpc`, `poll`, `ui` and `view` as the
// pages of luci-app-gatewrt use, with LuCI's own meaning; above all, a bare string is HTML here as well. `form` and `uci`
// are in form.js. It looks like nothing in particular: LuCI's themes are not here.

"use strict";

window._ = (text) => text;

const AMOUNTS = ["", "K", "M", "G", "T"];

/** “%1024.1m”: an amount with its unit; so many decimals. */
function amount(value, base, decimals) {
  let size = 0;
  for (; value > base && size < AMOUNTS.length - 1; size++) value /= base;
  return size ? `${value.toFixed(decimals)} ${AMOUNTS[size]}${base === 1024 ? "i" : ""}` : `${value} `;
}

Object.defineProperty(String.prototype, "format", {
  value(...values) {
    return this.replace(/%(\d+)?(?:\.(\d))?([sdm%])/g, (_all, base, decimals, kind) => {
      if (kind === "%") return "%";
      const value = values.shift();
      return kind === "s" ? value : kind === "d" ? Math.floor(value) : amount(+value, +base, +decimals);
    });
  },
});

function append(node, children) {
  if (children instanceof Node) node.appendChild(children);
  else if (Array.isArray(children)) children.filter((child) => child != null).forEach((child) => node.append(child instanceof Node ? child : `${child}`));
  else if (children != null) node.innerHTML = `${children}`;
}

window.E = (tag, attributes = {}, children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value != null) node.setAttribute(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  append(node, children);
  return node;
};

/** What the page's own address and the server say. */
const page = JSON.parse(document.getElementById("page").textContent);

/** A call of ubus: its answer, or the number that ubus gives instead. */
async function ubus(object, method, params) {
  const answer = await fetch("/ubus", { method: "POST", body: JSON.stringify({ object, method, params }) });
  if (!answer.ok) throw new Error(`RPC call failed with HTTP error ${answer.status}`);
  const [code, value] = await answer.json();
  return value ?? code;
}

const rpc = {
  declare: ({ object, method, params = [], expect }) => (...values) =>
    ubus(object, method, Object.fromEntries(params.map((name, at) => [name, values[at]]))).then((answer) => (expect && typeof answer !== "object" ? expect[""] : answer)),
};

/** Faster than a router's page, which a test would wait for. */
const poll = { add: (look) => window.setInterval(look, 500) };

const ui = {
  createHandlerFn: (context, handler) => async ({ currentTarget }) => {
    currentTarget.disabled = true;
    await handler.call(context);
    currentTarget.disabled = false;
  },
  showModal(title, children) {
    this.hideModal();
    const dialog = E("dialog", { class: "modal", "aria-labelledby": "modal-title" });
    append(dialog, [E("h4", { id: "modal-title" }, title), ...children]);
    document.body.append(dialog);
    dialog.showModal();
  },
  hideModal: () => document.querySelector("dialog")?.remove(),
  addNotification(title, children, kind) {
    const message = E("div", { class: `alert-message ${kind}`, role: "status" });
    append(message, [title == null ? null : E("h4", {}, title), children]);
    document.getElementById("maincontent").prepend(message);
  },
};

const ready = { baseclass: { extend: (members) => members }, view: { extend: (members) => ({ ...buttons, ...members }) }, rpc, poll, ui };

/** Runs a file with what its 'require' lines name in scope. */
async function load(name) {
  const source = await (await fetch(`/luci-static/resources/${name.replaceAll(".", "/")}.js`)).text();
  const wanted = [...source.matchAll(/^'require ([\w.-]+)(?: as (\w+))?';$/gm)].map(([, path, as]) => [as ?? path, need(path)]);
  const values = await Promise.all(wanted.map(([, value]) => value));
  return new Function(...wanted.map(([as]) => as), `${source}\n//# sourceURL=${name}`)(...values);
}

const need = (name) => (ready[name] ??= load(name));

window.L = {
  url: (path) => `/cgi-bin/luci/${path}`,
  hasViewPermission: () => page.writes,
  resolveDefault: (promise, fallback) => promise.catch(() => fallback),
  ready,
};

/** What a view has when it says nothing else: the buttons below its forms. */
const buttons = {
  handleSave: () => Promise.all(ready.form.maps.map((map) => map.save())),
  handleSaveApply() {
    return this.handleSave().then(() => ui.addNotification(null, ["Applied"], "info"), (error) => ui.addNotification(null, [error.message], "error"));
  },
};

document.addEventListener("DOMContentLoaded", async () => {
  const view = await need(`view.${page.view.replace("/", ".")}`);
  const nodes = await view.render(await view.load());
  const save = view.handleSaveApply && E("button", { click: ui.createHandlerFn(view, view.handleSaveApply), disabled: page.writes ? null : true }, ["Save & Apply"]);
  document.getElementById("view").replaceChildren(nodes, save || "");
});
