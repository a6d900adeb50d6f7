// The network as a picture, and the same in words. Where the cards stand depends on their number and order alone, so
// that the picture keeps still while states change.

import { h, s } from "./dom.js";
import { outcome, flowsOf, guestsOf, isExit, scopesOf } from "./exits.js";
import { condition, pathsInWords, tunnel } from "./nodes.js";
import { and, count } from "./words.js";

const LINE = 17;
const MOST_LINES = 4;
/** Largest number of nodes for a picture; beyond this there are words only. */
const MOST = 60;

const WIDE = { width: 960, card: 178, letters: 23, roomy: 10 };
const NARROW = { width: 380, card: 148, letters: 18, roomy: 6 };

const narrow = matchMedia("(max-width: 700px)");
export const onResize = (redraw) => narrow.addEventListener("change", redraw);

/** Draws the network as a picture. `clients` are ClientViews. */
export function picture(net, nodes, clients) {
  const size = narrow.matches ? NARROW : WIDE;
  const shown = nodes.length > MOST ? null : nodes.length > size.roomy ? ring(net, nodes, size) : cards(net, nodes, clients, size);
  return h("div", { class: "picture" }, shown ?? h("p", { class: "lead" }, `With more than ${MOST} nodes a picture says little: `, h("a", { href: `#/n/${net}/nodes` }, "the list of nodes"), " says how each is."), shown && legend(),
    h("details", { class: "more", "data-key": "words" }, h("summary", null, "The same in words"), words(nodes, clients)));
}

function cards(net, nodes, clients, size) {
  const made = nodes.map((node) => ({ node, lines: linesOf(node, nodes, clients, size.letters) }));
  const tallest = Math.max(...made.map((one) => heightOf(one.lines)));
  const places = placesOf(made.length, size, tallest);
  const tunnels = pairs(made.length).map(([i, j]) => wire(nodes[i], nodes[j], places[i], places[j]));
  return frame(size.width, places.height, [...tunnels, ...flows(nodes, places, BOW)], made.map((one, i) => card(net, one, places[i], size)));
}

function heightOf(lines) {
  return 54 + lines.length * LINE + (lines.length ? 8 : 0);
}

/** Places of the nodes' cards: few on a narrow screen stand in two columns, others on an ellipse. */
function placesOf(number, size, tallest) {
  if (size === NARROW) return columns(number, size, tallest);
  const rx = (size.width - size.card) / 2 - 8;
  const ry = number < 3 ? 0 : Math.max(tallest * 0.95, 110) * (number > 6 ? 1.75 : number > 4 ? 1.3 : 1);
  const height = ry * 2 + tallest + 24;
  const turn = number === 2 ? Math.PI : -Math.PI / 2;
  const spread = number < 4 ? 0.72 : 1;
  const places = Array.from({ length: number }, (_, i) => {
    const angle = turn + (i / number) * 2 * Math.PI;
    return number === 1 ? { x: size.width / 2, y: height / 2 } : { x: size.width / 2 + rx * spread * Math.cos(angle), y: height / 2 + ry * Math.sin(angle) };
  });
  return Object.assign(places, { height });
}

function columns(number, size, tallest) {
  const step = tallest / 2 + 38;
  const places = Array.from({ length: number }, (_, i) => ({
    x: number === 1 ? size.width / 2 : i % 2 === 0 ? size.card / 2 + 6 : size.width - size.card / 2 - 6,
    y: tallest / 2 + 12 + i * step,
  }));
  return Object.assign(places, { height: (number - 1) * step + tallest + 24 });
}

function pairs(number) {
  return Array.from({ length: number }, (_, i) => Array.from({ length: i }, (_, j) => [i, j])).flat();
}

function wire(one, other, from, to) {
  const how = tunnel(one, other);
  const isGone = !one.online || !other.online;
  return s("line", { class: `wire ${how}${isGone ? " gone" : ""}`, "data-key": `${one.id} ${other.id}`, x1: from.x, y1: from.y, x2: to.x, y2: to.y }, s("title", null, `${one.name} and ${other.name}: ${how}`));
}

/** Distance of the line to an exit from the tunnel that it goes through. */
const BOW = 34;

/** Draws the traffic through exits, as arrows. */
function flows(nodes, places, bow) {
  const place = new Map(nodes.map((node, i) => [node.id, places[i]]));
  return flowsOf(nodes).filter(({ from, to }) => place.has(from.id) && place.has(to.id)).map((flow) => arrow(flow, place.get(flow.from.id), place.get(flow.to.id), bow));
}

function arrow({ from, to, names }, start, end, bow) {
  const [dx, dy] = [end.x - start.x, end.y - start.y];
  const length = Math.hypot(dx, dy) || 1;
  const aside = (far) => `${round((start.x + end.x) / 2 - (dy / length) * far)} ${round((start.y + end.y) / 2 + (dx / length) * far)}`;
  const turn = round((Math.atan2(dy, dx) * 180) / Math.PI);
  return s("g", { class: "flow", "data-key": `out ${from.id} ${to.id}`, "data-testid": `flow-${from.name}-${to.name}` }, s("title", null, `${from.name} goes out through ${to.name}: ${and(names)}`),
    s("path", { class: "wire out", d: `M ${round(start.x)} ${round(start.y)} Q ${aside(bow * 2)} ${round(end.x)} ${round(end.y)}` }),
    s("path", { class: "tip", d: "M -8 -7 L 8 0 L -8 7 Z", transform: `translate(${aside(bow)}) rotate(${turn})` }));
}

const round = (number) => Math.round(number * 10) / 10;

function card(net, { node, lines }, { x, y }, size) {
  const height = heightOf(lines);
  const left = x - size.card / 2;
  const top = y - height / 2;
  const { tone, text } = condition(node);
  return s("a", { href: `#/n/${net}/nodes/${node.name}`, class: `node ${tone}`, "data-key": node.id },
    s("rect", { class: "face", x: left, y: top, width: size.card, height, rx: 11 }),
    s("circle", { class: "state", cx: left + 17, cy: top + 21, r: 5 }),
    s("text", { class: "name", x: left + 30, y: top + 26 }, cut(node.name, size.letters - 6)),
    s("text", { class: "soft", x: left + 30, y: top + 43 }, cut(tone === "good" ? node.addresses[0] ?? "" : text, size.letters - 2)),
    lines.length > 0 && s("line", { class: "rule", x1: left + 12, x2: left + size.card - 12, y1: top + 53, y2: top + 53 }),
    lines.map((line, i) => s("text", { class: line.kind, x: left + 14, y: top + 70 + i * LINE, "data-key": `${i}` }, line.text)));
}

/** Lines of a node's card: its served prefixes, its traffic through exits, then its clients. */
function linesOf(node, all, clients, letters) {
  const serves = node.egress.map((egress) => ({ kind: "serves", text: cut(`→ ${egress.prefix}`, letters) }));
  const here = clients.filter((client) => client.gateway === node.name);
  const mark = (client) => (client.live?.online ? "●" : "○");
  const named = here.map((client) => ({ kind: client.live?.online ? "client in" : "client", text: cut(`${mark(client)} ${client.name}`, letters) }));
  return [...fold(serves, "more prefixes"), ...fold(outLines(node, all, letters), "more", "out"), ...fold(named, "more clients", "client")];
}

function outLines(node, all, letters) {
  const guests = new Set(guestsOf(node, all).map((guest) => guest.node)).size;
  const exit = isExit(node) ? [{ kind: "out", text: `⇱ exit${guests ? ` for ${guests}` : ""}` }] : [];
  const scopes = scopesOf(node, all).map(({ name, live }) => {
    const how = node.online ? live?.state : undefined;
    const [kind, words] = { exit: ["out", `⇱ ${name} → ${live?.exit}`], blocked: ["cut", `✕ ${name} is blocked`], wan: ["open", `! ${name} → own WAN`] }[how] ?? ["soft", `? ${name}`];
    return { kind, text: cut(words, letters - 2) };
  });
  return [...exit, ...scopes];
}

function fold(lines, words, kind = "serves") {
  if (lines.length <= MOST_LINES) return lines;
  return [...lines.slice(0, MOST_LINES - 1), { kind, text: `+ ${lines.length - MOST_LINES + 1} ${words}` }];
}

/** Draws many nodes as a ring of dots: the tunnels that are down, and those of the node that is pointed at. */
function ring(net, nodes, size) {
  const radius = size === NARROW ? 108 : 230;
  const middle = { x: size.width / 2, y: radius + (size === NARROW ? 86 : 96) };
  const places = nodes.map((_, i) => ({ angle: (i / nodes.length) * 2 * Math.PI - Math.PI / 2 }));
  for (const place of places) Object.assign(place, { x: middle.x + radius * Math.cos(place.angle), y: middle.y + radius * Math.sin(place.angle) });
  const wires = pairs(nodes.length).map(([i, j]) => wire(nodes[i], nodes[j], places[i], places[j]));
  const dots = nodes.map((node, i) => dot(net, node, places[i], size === NARROW ? 11 : 20));
  return frame(size.width, middle.y * 2, [...wires, ...flows(nodes, places, 0)], dots, "ring");
}

function dot(net, node, { x, y, angle }, letters) {
  const { tone, text } = condition(node);
  const isLeft = Math.cos(angle) < -0.001;
  const degrees = (angle * 180) / Math.PI + (isLeft ? 180 : 0);
  return s("a", { href: `#/n/${net}/nodes/${node.name}`, class: `node ${tone}`, "data-key": node.id, "aria-label": `${node.name}: ${text}` },
    s("title", null, `${node.name}: ${text}`), s("circle", { class: "state", cx: x, cy: y, r: 7 }),
    s("text", { class: "name", x: x + (isLeft ? -14 : 14), y: y + 4, "text-anchor": isLeft ? "end" : "start", transform: `rotate(${degrees} ${x} ${y})` }, cut(node.name, letters)));
}

function frame(width, height, wires, nodes, kind = "") {
  return s("svg", { viewBox: `0 0 ${width} ${Math.ceil(height)}`, class: `map ${kind}`, role: "group", "aria-label": "Picture of the network", "data-testid": "picture", "data-key": `${width} ${kind}` },
    s("g", { "aria-hidden": "true" }, wires), nodes);
}

const cut = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1)}…` : text);

function legend() {
  const line = (how) => s("svg", { viewBox: "0 0 30 8", class: "map key", "aria-hidden": "true" }, s("line", { class: `wire ${how}`, x1: 1, x2: 29, y1: 4, y2: 4 }));
  return h("p", { class: "legend" }, h("span", null, line("direct"), "direct"), h("span", null, line("down"), "down"), h("span", null, line("unknown"), "not known yet"),
    h("span", null, line("out"), "⇱ Internet traffic to an exit"), h("span", null, "→ serves a prefix"), h("span", null, "● client connected, ○ not"));
}

function tunnelsInWords(node, nodes) {
  const names = { direct: [], relay: [], down: [], unknown: [] };
  for (const other of nodes) if (other !== node) (names[tunnel(node, other)] ?? names.unknown).push(other.name);
  return [
    names.direct.length > 0 && `${count(names.direct.length, "direct tunnel")}: ${and(names.direct)}.`,
    names.relay.length > 0 && `By relay: ${and(names.relay)}.`,
    names.down.length > 0 && `${count(names.down.length, "tunnel")} down: ${and(names.down)}.`,
    names.unknown.length > 0 && `Not known yet: ${and(names.unknown)}.`,
  ];
}

function words(nodes, clients) {
  return h("ul", { class: "stack", "data-testid": "picture-words" }, nodes.map((node) => h("li", { "data-key": node.id }, h("strong", null, node.name), ` is ${condition(node).text}. `, sentences(node, nodes, clients).join(" "))));
}

function sentences(node, nodes, clients) {
  const tunnels = nodes.length > MOST ? [`Tunnels: ${pathsInWords(node, nodes) || "none reported"}.`] : tunnelsInWords(node, nodes);
  const here = clients.filter((client) => client.gateway === node.name).map((client) => `${client.name}${client.live?.online ? " (connected)" : ""}`);
  return [
    node.egress.length > 0 && `It serves ${and(node.egress.map((egress) => egress.prefix))}.`,
    isExit(node) && "It is an exit.",
    ...scopesOf(node, nodes).map(({ name, live }) => `${name}: ${outcome(node, live).text}.`),
    ...tunnels,
    here.length > 0 && `${count(here.length, "client")}: ${and(here)}.`,
  ].filter(Boolean);
}
