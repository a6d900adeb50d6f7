// The frame around the views: who is logged in, where one is (the address after #), and drawing when something changes.

import { h, morphChildren } from "./dom.js";
import { Problem, get, listenToChanges, post, setSession } from "./api.js";
import { showObeyed } from "./obeyed.js";
import { announce, button, icon, iconButton, problemBox } from "./ui.js";
import { applyTheme, nextTheme, theme } from "./theme.js";
import { follow, listen, loadNetworks, loadStatus, state, statusOf, stop } from "./state.js";
import login from "./views/login.js";
import networks from "./views/networks.js";
import overview from "./views/overview.js";
import nodes from "./views/nodes.js";
import node from "./views/node.js";
import codes from "./views/codes.js";
import clients from "./views/clients.js";
import client from "./views/client.js";
import exits from "./views/exits.js";
import access from "./views/access.js";
import audit from "./views/audit.js";
import tokens from "./views/tokens.js";

/** Views by address. `part`: the place in the navigation. */
const ROUTES = [
  { pattern: [], view: networks },
  { pattern: ["tokens"], view: tokens, part: "tokens" },
  { pattern: ["log"], view: audit, part: "log" },
  { pattern: ["n", ":net"], view: overview, part: "" },
  { pattern: ["n", ":net", "nodes"], view: nodes, part: "nodes" },
  { pattern: ["n", ":net", "nodes", ":node"], view: node, part: "nodes" },
  { pattern: ["n", ":net", "clients"], view: clients, part: "clients" },
  { pattern: ["n", ":net", "clients", ":client"], view: client, part: "clients" },
  { pattern: ["n", ":net", "exits"], view: exits, part: "exits" },
  { pattern: ["n", ":net", "access"], view: access, part: "access" },
  { pattern: ["n", ":net", "codes"], view: codes, part: "codes" },
  { pattern: ["n", ":net", "log"], view: audit, part: "log" },
];

const PARTS = [
  ["", "Overview", "map"],
  ["nodes", "Nodes", "node"],
  ["clients", "Clients", "phone"],
  ["exits", "Exits", "globe"],
  ["access", "Access", "shield"],
  ["codes", "Join codes", "key"],
  ["log", "Log", "list"],
];

const LINKS = {
  live: ["good", "Live", "Changes show up by themselves"],
  polling: ["warn", "Every 4 s", "The live stream is interrupted: this page asks every few seconds instead"],
  lost: ["bad", "No connection", "What you see may be old: this page keeps trying"],
};

const header = h("header", { class: "top" });
const nav = h("nav", { class: "side", "aria-label": "Network" });
const main = h("main", { id: "main", tabindex: "-1" });
/** View that is shown: { view, part, args, key, number, isLoaded, data, error, asked, answered }. */
let shown = null;
/** Number of views opened so far: each has a number of its own, so that no view takes over what another has drawn. */
let opened = 0;

function parse(hash) {
  return hash.replace(/^#\/?/, "").replace(/\?.*$/, "").split("/").filter(Boolean).map(decodeURIComponent);
}

/** Parameters of the query after the ? in the page's address. */
function questionOf(hash) {
  return Object.fromEntries(new URLSearchParams(hash.split("?")[1] ?? ""));
}

function routeOf(parts) {
  for (const route of ROUTES) {
    const isSame = route.pattern.length === parts.length && route.pattern.every((part, i) => part.startsWith(":") || part === parts[i]);
    if (isSame) {
      const named = route.pattern.map((part, i) => [part.slice(1), parts[i], part.startsWith(":")]);
      return { ...route, args: Object.fromEntries(named.filter(([, , isArg]) => isArg)) };
    }
  }
  return null;
}

function draw() {
  document.body.classList.toggle("bare-page", !state.me);
  morphChildren(header, h("header", null, state.me && headerParts()));
  morphChildren(nav, h("nav", null, state.me && shown?.args.net && navParts(shown.args.net)));
  nav.hidden = !state.me || !shown?.args.net;
  if (!shown) return;
  document.title = `${shown.view.title(shown.args)} · GateWRT`;
  main.setAttribute("aria-busy", String(!shown.isLoaded && !shown.error));
  morphChildren(main, h("main", null, h("div", { "data-key": shown.number, class: "view" }, content())));
}

function content() {
  if (shown.error) return failed(shown.error);
  if (!shown.isLoaded) return [h("h1", { tabindex: "-1" }, shown.view.title(shown.args)), h("p", { class: "wait" }, "Loading…")];
  return shown.view.draw({ ...shown.args, data: shown.data, page });
}

function failed(error) {
  const problem = error instanceof Problem ? error : { title: "This page made a mistake", detail: String(error) };
  return [h("h1", { tabindex: "-1" }, shown.view.title(shown.args)), problemBox(problem),
    h("p", { class: "buttons start" }, button("Try again", () => page.reload()), h("a", { class: "button quiet", href: "#/" }, "All networks"))];
}

/** Functions of the frame that views use. */
const page = {
  draw,
  /** Asks the API for all that the view shows; `status` too, unless that comes by itself. */
  async reload({ status = true } = {}) {
    const wanted = shown;
    const net = wanted.args.net;
    const turn = (wanted.asked += 1);
    try {
      const needsStatus = net && (status || !statusOf(net));
      const [data] = await Promise.all([wanted.view.load?.(wanted.args), needsStatus && loadStatus(net)]);
      // An answer overtaken by a later request is outdated.
      if (shown !== wanted || turn < wanted.answered) return;
      Object.assign(shown, { data, isLoaded: true, error: null, answered: turn });
    } catch (error) {
      if (shown !== wanted) return;
      // Content that is already shown stays readable while the coordinator is away.
      if (!shown.isLoaded || error.status === 404) shown.error = error;
    }
    draw();
  },
  go(hash) {
    location.hash = hash;
  },
  async entered(me) {
    setSession(me.csrf, signedOut);
    state.me = me;
    remember(true);
    await loadNetworks();
    if (state.networks.length === 1 && parse(location.hash).length === 0) history.replaceState(null, "", `#/n/${state.networks[0].name}`);
    await open();
  },
};

async function open() {
  const route = state.me ? routeOf(parse(location.hash)) : { view: login, args: {} };
  if (!route) return page.go("#/");
  const isSame = shown && shown.key === location.hash && shown.view === route.view;
  if (isSame) return;
  for (const box of document.querySelectorAll("dialog:not(.firm)")) box.close();
  shown = { ...route, args: { ...route.args, question: questionOf(location.hash) }, key: location.hash, number: (opened += 1), isLoaded: !route.view.load, error: null, asked: 0, answered: 0 };
  if (state.me) follow(route.args.net);
  const loading = route.view.load ? page.reload() : Promise.resolve();
  // A view that is there at once does not flash "Loading…".
  await Promise.race([loading, new Promise((done) => setTimeout(done, 120))]);
  draw();
  await loading;
  focusHeading();
  window.scrollTo(0, 0);
}

function focusHeading() {
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  const wanted = main.querySelector("[data-first]") ?? main.querySelector("h1");
  wanted?.focus({ preventScroll: true });
}

function headerParts() {
  const net = shown?.args.net;
  const [tone, words, why] = LINKS[state.link];
  return [
    h("button", { class: "skip", type: "button", onclick: () => main.focus() }, "Skip to content"),
    h("a", { class: "brand", href: "#/", "aria-label": "GateWRT: all networks" }, h("span", { class: "mark", "aria-hidden": "true" }), h("span", { class: "wordmark" }, "GateWRT")),
    state.networks.length > 0 && net && networkSwitch(net),
    h("span", { class: "spring" }),
    h("span", { class: `link ${tone}`, title: why, role: "status", "data-testid": "link" }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "words" }, words)),
    themeButton(),
    account(),
  ];
}

function networkSwitch(net) {
  const names = state.networks.map((network) => network.name);
  const options = [...names.map((name) => h("option", { value: name }, name)), h("option", { value: "" }, "All networks…")];
  const onchange = (event) => {
    const name = event.currentTarget.value;
    page.go(name ? `#/n/${name}` : "#/");
  };
  return h("select", { class: "networks", "aria-label": "Network", value: net, onchange, "data-key": `switch ${names.join(" ")}` }, options);
}

function themeButton() {
  const [symbol, words] = { auto: ["auto", "as this device"], light: ["sun", "light"], dark: ["moon", "dark"] }[theme()];
  return iconButton(`Colours: ${words}`, symbol, () => {
    nextTheme();
    draw();
  }, { "data-testid": "theme", "data-key": `theme ${symbol}` });
}

function account() {
  const who = state.me.rights === "admin" ? state.me.name : `${state.me.name} (read only)`;
  return h("details", { class: "menu", "data-key": "account" }, h("summary", { class: "button quiet", "data-testid": "account" }, h("span", null, who)),
    h("div", { class: "sheet" },
      h("a", { href: "#/", onclick: closeMenu }, icon("map"), "Networks"),
      state.me.rights === "admin" && h("a", { href: "#/tokens", onclick: closeMenu }, icon("key"), "Tokens"),
      h("a", { href: "#/log", onclick: closeMenu }, icon("list"), "Log of changes"),
      h("button", { type: "button", onclick: leave }, icon("out"), "Log out"),
      h("small", null, `coordinator ${state.version}`)));
}

function closeMenu() {
  const menu = header.querySelector("details.menu");
  if (menu) menu.open = false;
}

function navParts(net) {
  return PARTS.map(([part, words, symbol]) => h("a", {
    href: `#/n/${net}${part && `/${part}`}`, "aria-current": shown.part === part ? "page" : null, "data-key": part || "overview",
  }, icon(symbol), h("span", null, words)));
}

/** True while the session is being ended: what is asked for then may come after its end. */
let isLeaving = false;

async function leave() {
  isLeaving = true;
  await post("/logout").catch(() => {});
  isLeaving = false;
  signedOut();
}

function signedOut() {
  if (!state.me) return;
  state.me = null;
  remember(false);
  state.status.clear();
  stop();
  for (const box of document.querySelectorAll("dialog")) box.close();
  shown = null;
  open();
}

const SOON = 250;
/** Shortest time between two reloads for reports, in milliseconds: reports come all the time. */
const PACE = 1500;
let waiting = 0;

function reloadIn(time) {
  waiting ||= setTimeout(() => {
    waiting = 0;
    if (state.me && !isLeaving && shown?.view.load) page.reload({ status: false });
  }, time);
}

listen((what, network) => {
  if (!state.me || !shown) return;
  if (what === "link") announce(LINKS[state.link][1]);
  const isHere = !network || !shown.args.net || network === shown.args.net;
  if (what === "gone" && network === shown.args.net) page.reload();
  if (what === "change" && isHere) reloadIn(SOON);
  if (what === "report" && isHere && shown.view.isLively) reloadIn(PACE);
  draw();
});

document.addEventListener("click", (event) => {
  const menu = header.querySelector("details.menu[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = header.querySelector("details.menu[open]");
  if (menu && event.key === "Escape") {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
window.addEventListener("hashchange", open);
/** Reloads the view now and then: ages grow without news, and not all that someone else does makes an event. */
setInterval(() => !document.hidden && state.me && reloadIn(0), 15_000);

async function start() {
  applyTheme();
  document.body.append(header, nav, main);
  try {
    if (!wasIn()) throw new Problem({ status: 401 });
    await page.entered(await get("/me"));
  } catch {
    setSession("", signedOut);
    state.me = null;
    await open();
  }
}

/** Storage key that is set while there may be a session: without one a request is refused, and the cookie can't be read here. */
const IN = "gatewrt.in";
function wasIn() {
  try {
    return localStorage.getItem(IN) !== null;
  } catch {
    return true;
  }
}
function remember(isIn) {
  try {
    if (isIn) localStorage.setItem(IN, "1");
    else localStorage.removeItem(IN);
  } catch {
    // Then it is asked each time.
  }
}

login.entered = page.entered;
listenToChanges(showObeyed);
start();
