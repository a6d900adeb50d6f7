// Dialogs and the fields in them.

import { h } from "./dom.js";
import { act, button, fresh, iconButton, slot } from "./ui.js";

/**
 * A modal dialog; focus goes back to where it was when it closes. `draw(close)` gives its content. A firm one shows what
 * can't be shown again: the Escape key does not close it.
 */
export function dialog(title, draw, { wide = false, firm = false, hasSlot = true, onclose = () => {} } = {}) {
  const id = fresh("dialog");
  const before = document.activeElement;
  const box = h("dialog", { class: [wide && "wide", firm && "firm"].filter(Boolean).join(" ") || null, "aria-labelledby": id, "data-slot": "" });
  const close = () => box.close();
  box.append(
    h("div", { class: "head" }, h("h2", { id, tabindex: "-1" }, title), iconButton("Close", "close", close)),
    ...(hasSlot ? [slot()] : []),
    ...[draw(close, box)].flat(),
  );
  box.addEventListener("cancel", (event) => firm && event.preventDefault());
  box.addEventListener("keydown", (event) => firm && event.key === "Escape" && event.preventDefault());
  box.addEventListener("close", () => {
    box.remove();
    onclose();
    if (before?.isConnected) before.focus({ preventScroll: true });
  });
  document.body.append(box);
  box.showModal();
  (box.querySelector("[data-first], form input:not([type=hidden]), form select") ?? box.querySelector("h2")).focus();
  return box;
}

/** Opens a dialog with a form; `foot` stays in sight. `send(values, form)` asks the coordinator; it closes when that went well. */
export function formDialog(title, { submit, intro, fields, foot, send, wide, danger }) {
  return dialog(title, (close) => {
    const form = h("form", { class: "form", novalidate: true },
      intro && h("p", { class: "lead" }, intro), fields,
      h("div", { class: "foot" }, foot, slot(), h("div", { class: "buttons" }, button("Cancel", close, { kind: "quiet" }),
        h("button", { type: "submit", class: `button ${danger ? "danger" : "primary"}` }, h("span", null, submit)))));
    form.oninput = ({ target }) => {
      const hint = target.closest(".field")?.querySelector(".wrong");
      if (!hint?.textContent || !target.validity.valid) return;
      hint.textContent = "";
      target.removeAttribute("aria-invalid");
    };
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (!isComplete(form)) return;
      const control = form.querySelector("[type=submit]");
      let result;
      if (await act(control, async () => (result = await send(values(form), form)))) {
        close();
        result?.();
      }
    };
    return form;
  }, { wide, hasSlot: false });
}

/** Checks a form, and says what is missing at the first field that is not right. */
function isComplete(form) {
  for (const field of form.elements) {
    const hint = field.closest?.(".field")?.querySelector(".wrong");
    if (!hint) continue;
    hint.textContent = field.validity.valid ? "" : field.dataset.wrong ?? field.validationMessage;
    if (field.validity.valid) field.removeAttribute("aria-invalid");
    else field.setAttribute("aria-invalid", "true");
  }
  const wrong = [...form.elements].find((field) => field.validity && !field.validity.valid);
  if (wrong) {
    const folded = wrong.closest("details");
    if (folded) folded.open = true;
    wrong.focus();
  }
  return !wrong;
}

/** Values of a form by name: texts; a checkbox is a boolean, several of one name an array. */
export function values(form) {
  const all = {};
  for (const field of form.elements) {
    if (!field.name || (field.type === "radio" && !field.checked)) continue;
    if (field.type === "checkbox" && field.value !== "on") {
      (all[field.name] ??= []).push(...(field.checked ? [field.value] : []));
    } else {
      all[field.name] = field.type === "checkbox" ? field.checked : field.value.trim();
    }
  }
  return all;
}

/** Field for a line of text, with its label. */
export function text(label, name, { hint, wrong, value = "", ...attrs } = {}) {
  const id = fresh(name);
  const input = h("input", {
    id, name, value, type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    "aria-describedby": `${id}-hint ${id}-wrong`, "data-wrong": wrong, ...attrs,
  });
  return h("div", { class: "field" }, h("label", { for: id }, label), input,
    h("p", { class: "hint", id: `${id}-hint` }, hint), h("p", { class: "wrong", id: `${id}-wrong`, role: "alert" }));
}

const NAME = "[a-z0-9]([a-z0-9\\-]*[a-z0-9])?";

/** Field for the name of an object. */
export function nameField(label, { name = "name", longest = 63, ...attrs } = {}) {
  const wrong = `1 to ${longest} characters of a-z, 0-9 and “-”, with a letter or digit first and last`;
  return text(label, name, { required: true, pattern: NAME, maxlength: longest, wrong, hint: "a-z, 0-9 and “-”", ...attrs });
}

export function select(label, name, options, { hint, value, ...attrs } = {}) {
  const id = fresh(name);
  const shown = options.map(([key, words, disabled]) => h("option", { value: key, disabled }, words));
  return h("div", { class: "field" }, h("label", { for: id }, label),
    h("select", { id, name, value: value ?? options[0]?.[0], "aria-describedby": `${id}-hint`, ...attrs }, shown), h("p", { class: "hint", id: `${id}-hint` }, hint));
}

export function checkbox(label, name, { hint, ...attrs } = {}) {
  return h("label", { class: "check" }, h("input", { type: "checkbox", name, "aria-label": label, "aria-description": hint, ...attrs }), h("span", null, label, hint && h("small", null, hint)));
}

/** Field to choose one of a few options, each with what it means. */
export function choice(legend, name, options, value) {
  return h("fieldset", { class: "choice" }, h("legend", null, legend),
    options.map(([key, words, hint]) => h("label", { class: "check" },
      h("input", { type: "radio", name, value: key, checked: key === value, "aria-label": words, "aria-description": hint }), h("span", null, words, hint && h("small", null, hint)))));
}

/** Opens a dialog that asks before what can't be undone. */
export function confirm(title, words, submit, send) {
  return formDialog(title, { submit, intro: words, fields: [], send, danger: true });
}

/** Checks a field with the coordinator while someone types; `check(text, signal)` answers as in `watch`. */
export function checked(input, output, check) {
  return watch(input, output, (signal) => {
    const typed = input.value.trim();
    return typed ? check(typed, signal) : { tone: "", words: [] };
  });
}

/** Checks what changes in `source`, a field or a form; `check(signal)` answers { tone, words } or throws a Problem. */
export function watch(source, output, check) {
  let timer = 0;
  let running = null;
  const say = (tone, words) => {
    output.className = `verdict ${tone}`;
    output.replaceChildren(...words.filter(Boolean).map((line) => h("p", null, line)));
  };
  const run = async () => {
    running?.abort();
    running = new AbortController();
    try {
      const { tone = "good", words } = await check(running.signal);
      say(tone, words);
    } catch (error) {
      if (error.name !== "AbortError") say("bad", [error.title ?? error.message, error.detail]);
    }
  };
  source.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(run, 250);
  });
  return run;
}
