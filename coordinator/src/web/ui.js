// The parts that views are made of.

import { h, s } from "./dom.js";
import { Problem } from "./api.js";

let counter = 0;
/** Fresh id of an element, for labels and what they label. */
export const fresh = (word) => `${word}-${(counter += 1)}`;

const ICONS = {
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M5 13l4 4L19 7",
  close: "M6 6l12 12M18 6L6 18",
  back: "M14 6l-6 6 6 6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  warn: "M12 4l9 16H3zM12 10v4M12 17v.5",
  phone: "M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zM11 18h2",
  node: "M4 13h16v6H4zM8 16h.01M12 13V8M8 5.5a6 6 0 0 1 8 0",
  map: "M6 8a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM18 12a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM9 20a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM8 7l8 2.5M7 8l1.500 8M16.500 11.500L10.500 16.500",
  shield: "M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6z",
  key: "M8 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 12h9M18 12v3M15 12v2",
  list: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  globe: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M5 19l1.500-1.500M17.500 6.500L19 5",
  moon: "M20 14A8 8 0 1 1 10 4a6.500 6.500 0 0 0 10 10z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  out: "M10 4H5v16h5M9 12h11M16 8l4 4-4 4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
};

/** Icon beside words, or alone inside something that has a label. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

/** Button with words. `kind`: primary, plain (default), quiet, danger. */
export function button(label, onclick, { kind = "plain", symbol, ...attrs } = {}) {
  return h("button", { type: "button", class: `button ${kind}`, onclick, ...attrs }, symbol && icon(symbol), h("span", null, label));
}

/** Button that is only an icon; `label` is its name. */
export function iconButton(label, symbol, onclick, attrs) {
  return h("button", { type: "button", class: "button quiet square", "aria-label": label, title: label, onclick, ...attrs }, icon(symbol));
}

/** Badge with a state in words. `tone`: good, bad, warn, quiet, info. The word says the same as the colour. */
export function badge(tone, text, attrs) {
  return h("span", { class: `badge ${tone}`, ...attrs }, h("span", { class: "dot", "aria-hidden": "true" }), text);
}

export const tag = (text) => h("span", { class: "tag" }, text);

/** Head of a view, with its title. */
export function titleBar(title, { beside, actions } = {}) {
  return h("div", { class: "title" }, h("h1", { tabindex: "-1" }, title), beside, h("span", { class: "spring" }), actions);
}

/** Card with a heading; `actions` stand beside the heading. */
export function section(title, { actions, id, lead, key } = {}, ...content) {
  const heading = id ?? fresh("section");
  const name = key ?? title;
  return h("section", { class: "card", "aria-label": title, "data-key": `section ${name}`, "data-slot": "" },
    h("div", { class: "head" }, h("h2", null, title), actions && h("div", { class: "actions" }, actions)),
    lead && h("p", { class: "lead", id: heading }, lead), slot(), content);
}

/** Slot for problems of the controls around it. It survives redrawing. */
export function slot() {
  return h("div", { class: "slot", role: "alert", "data-keep": "" });
}

export function problemBox(problem) {
  return h("div", { class: "problem" }, icon("warn"),
    h("div", null, h("strong", null, sentence(problem.title ?? problem.message)), problem.detail && h("p", null, sentence(problem.detail))));
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function slotOf(element) {
  return element?.closest("[data-slot]")?.querySelector(":scope > .slot, :scope .slot");
}

export function showProblem(element, error) {
  const problem = error instanceof Problem ? error : new Problem({ title: "This page made a mistake", detail: String(error) });
  if (!(error instanceof Problem)) console.error(error);
  const place = slotOf(element);
  if (!place) return announce(`${problem.title}. ${problem.detail}`);
  const close = iconButton("Dismiss", "close", () => place.replaceChildren());
  const box = problemBox(problem);
  box.append(close);
  place.replaceChildren(box);
  place.scrollIntoView({ block: "nearest" });
}

/** Runs what a control asks for: it waits meanwhile, and what was refused is said beside it. Answers whether it went well. */
export async function act(control, work) {
  if (control.hasAttribute("data-busy")) return false;
  control.setAttribute("data-busy", "");
  control.setAttribute("aria-busy", "true");
  const isField = control.matches("input, button");
  if (isField) control.disabled = true;
  slotOf(control)?.replaceChildren();
  try {
    await work();
    return true;
  } catch (error) {
    if (error.name !== "AbortError") showProblem(control, error);
    return false;
  } finally {
    control.removeAttribute("data-busy");
    control.removeAttribute("aria-busy");
    if (isField) {
      const hadFocus = document.activeElement === document.body;
      control.disabled = false;
      if (hadFocus && control.isConnected) control.focus({ preventScroll: true });
    }
  }
}

/** Switch that is on or off, and acts at once. `change(on)` asks the coordinator; when it refuses, the switch goes back. */
export function toggle(label, on, change, { hideLabel = false, disabled = false, hint, ...attrs } = {}) {
  const onchange = async (event) => {
    const input = event.currentTarget;
    const wanted = input.checked;
    if (!(await act(input, () => change(wanted)))) input.checked = !wanted;
  };
  const input = h("input", { type: "checkbox", role: "switch", checked: on, onchange, disabled, "aria-label": label, "aria-description": hint, ...attrs });
  return h("label", { class: "toggle" }, input, h("span", { class: "track", "aria-hidden": "true" }),
    !hideLabel && h("span", null, label, hint && h("small", null, hint)));
}

/** Button that copies a text, and says so. */
export function copyButton(text, label = "Copy", attrs = {}) {
  return button(label, async (event) => {
    const control = event.currentTarget;
    const words = control.querySelector("span");
    const done = await copy(text);
    words.textContent = done ? "Copied" : "Select and copy by hand";
    announce(words.textContent);
    setTimeout(() => (words.textContent = label), 2000);
  }, { symbol: "copy", "data-keep": "", ...attrs });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Block of text to be copied as a whole. */
export function snippet(text, { label = "Copy", name, testid } = {}) {
  return h("div", { class: "snippet" }, h("pre", { tabindex: "0", "aria-label": name, "data-testid": testid }, h("code", null, text)), label && copyButton(text, label));
}

const announcer = h("div", { class: "unseen", "aria-live": "polite", role: "status" });

/** Announces something to a screen reader. */
export function announce(text) {
  if (!announcer.isConnected) document.body.append(announcer);
  announcer.textContent = "";
  setTimeout(() => (announcer.textContent = text), 50);
}

/** List of label and value pairs. */
export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false && value.length !== 0);
  return shown.length > 0 && h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", { "data-key": name }, h("dt", null, name), h("dd", null, value))));
}

export function empty(text, ...more) {
  return h("div", { class: "empty" }, h("p", null, text), more);
}

/** Table that becomes cards on a narrow screen, where its roles have to be said. `rows`: { key, cells, testid, class }. */
export function table(caption, columns, rows, attrs) {
  const head = h("tr", { role: "row" }, columns.map((column) => h("th", { scope: "col", role: "columnheader" }, column || h("span", { class: "unseen" }, "Actions"))));
  const cell = (content, i) => i === 0
    ? h("th", { scope: "row", role: "rowheader" }, h("div", null, content))
    : h("td", { role: "cell", "data-column": columns[i], class: content === "" || content === null ? "void" : null }, h("div", null, content));
  const body = rows.map((row) => h("tr", { role: "row", "data-key": row.key, "data-testid": row.testid, class: row.class }, row.cells.map(cell)));
  return h("div", { class: "scroll", ...attrs }, h("table", { role: "table" }, h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, head), h("tbody", { role: "rowgroup" }, body)));
}
