// State of the page: the session, the networks and their status, and the connection to the coordinator.

import { get, path, query } from "./api.js";

export const state = {
  /** Name and rights of the session's token: { name, rights, network } */
  me: null,
  version: "",
  /** What concerns the coordinator itself: that it makes no change, that it was restored from a backup */
  notices: [],
  /** NetworkViews, by name */
  networks: [],
  /** NetworkStatus by the network's name */
  status: new Map(),
  /** State of the connection to the coordinator: `live`, `polling` (no stream, but answers), `lost` */
  link: "live",
};

const listeners = new Set();

/** Kinds of changes that come by themselves, all the time: how something is, not what someone wants. */
const LIVELY = new Set(["report", "presence", "connected", "disconnected"]);

/** Adds a listener, which is called with what changed (`status`, `change`, `report`, `gone`, `link`), and in which network. */
export function listen(listener) {
  listeners.add(listener);
}

function tell(what, network) {
  for (const listener of listeners) listener(what, network);
}

export const mayChange = () => state.me?.rights === "admin";
/** True if the session's token is for all networks, not just one. */
export const isWhole = () => !state.me?.network;
export const statusOf = (net) => state.status.get(net);

export async function loadNetworks() {
  const status = await get("/status");
  state.version = status.version;
  takeNotices(status);
  for (const one of status.networks) state.status.set(one.network.name, one);
  state.networks = status.networks.map((one) => one.network);
}

export async function loadStatus(net) {
  const status = await get(`/status${query({ network: net })}`);
  takeNotices(status);
  for (const one of status.networks) take(one);
}

function takeNotices({ unsure, recovery }) {
  const notices = [unsure && `No change is made: it is not known what is on the disk: ${unsure}`, recovery && `Set back: ${recovery}. See “gatewrt-coordinator recovery show”.`];
  state.notices = notices.filter(Boolean);
}

function take(one) {
  const name = one.network.name;
  state.status.set(name, one);
  const place = state.networks.findIndex((network) => network.name === name);
  if (place >= 0) state.networks[place] = one.network;
  else state.networks = [...state.networks, one.network].sort((a, b) => a.name.localeCompare(b.name));
}

const POLL_MS = 4000;
const HIDDEN_MS = 30_000;

let source = null;
let watched = null;
let poll = 0;
let hide = 0;
let failures = 0;

/** Follows the events of one network, or of all when none is named. */
export function follow(net) {
  const wanted = net ?? "";
  if (source && watched === wanted) return;
  stop();
  watched = wanted;
  source = new EventSource(`/v1/events${query({ network: net })}`);
  source.addEventListener("open", () => {
    failures = 0;
    setLink("live");
  });
  source.addEventListener("status", (event) => {
    setLink("live");
    const said = JSON.parse(event.data);
    for (const one of said.networks ?? [said]) take(one);
    tell("status", net);
  });
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    tell(LIVELY.has(change.what) ? "report" : "change", change.network ?? net);
  });
  source.addEventListener("gone", (event) => {
    state.status.delete(event.data);
    state.networks = state.networks.filter((network) => network.name !== event.data);
    tell("gone", event.data);
  });
  source.addEventListener("gap", () => tell("change", net));
  source.addEventListener("error", startPolling);
}

export function stop() {
  source?.close();
  source = null;
  watched = null;
  clearTimeout(poll);
  poll = 0;
}

/** Polls while there is no stream. The browser tries the stream again by itself, unless it was refused. */
function startPolling() {
  if (poll || !source) return;
  const ofSource = source;
  const round = async () => {
    if (source !== ofSource) return;
    if (source.readyState === EventSource.OPEN) {
      poll = 0;
      tell("change", watched || undefined);
      return;
    }
    try {
      await loadStatus(watched);
      setLink("polling");
      tell("status", watched || undefined);
      if (source?.readyState === EventSource.CLOSED) {
        const net = watched || undefined;
        stop();
        follow(net);
        return;
      }
    } catch {
      setLink("lost");
    }
    poll = setTimeout(round, POLL_MS);
  };
  poll = setTimeout(round, failures ? POLL_MS : 500);
  failures += 1;
}

function setLink(link) {
  if (state.link === link) return;
  state.link = link;
  tell("link");
}

/** Ends the stream of a hidden page, after a while: a browser has few connections to one server. */
document.addEventListener("visibilitychange", () => {
  clearTimeout(hide);
  if (document.hidden) {
    hide = setTimeout(() => {
      const net = watched;
      stop();
      watched = net;
    }, HIDDEN_MS);
  } else if (!source && watched !== null) {
    const net = watched || undefined;
    watched = null;
    follow(net);
    loadStatus(net).then(() => tell("change", net), () => {});
  }
});

export const nodePath = (net, node) => path`/networks/${net}/nodes/${node}`;
export const clientPath = (net, client) => path`/networks/${net}/clients/${client}`;
