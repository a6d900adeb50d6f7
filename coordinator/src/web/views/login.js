// Logging in with a token.

import { h } from "../dom.js";
import { Problem, post } from "../api.js";
import { act, slot } from "../ui.js";
import { text } from "../forms.js";

const view = {
  title: () => "Log in",
  /** Function of the frame that goes on with who has logged in. */
  entered: async () => {},
  draw() {
    return [h("div", { class: "login", "data-slot": "", "data-keep": "" },
      h("span", { class: "mark large", "aria-hidden": "true" }),
      h("h1", { tabindex: "-1" }, "GateWRT"),
      form())];
  },
};
export default view;

function form() {
  const field = text("Token", "token", {
    type: "password", required: true, "data-first": true, autocomplete: "current-password",
    hint: "On the coordinator's machine it is the file admin.token of its directory.",
  });
  const submit = h("button", { type: "submit", class: "button primary" }, h("span", null, "Log in"));
  const onsubmit = (event) => {
    event.preventDefault();
    const input = field.querySelector("input");
    const token = input.value.trim();
    if (!token) return input.focus();
    act(submit, async () => {
      const me = await post("/login", { token }).catch(inWords);
      input.value = "";
      await view.entered(me);
    });
  };
  // For password managers, which want to know whose password it is.
  const who = h("input", { type: "text", name: "username", autocomplete: "username", value: "GateWRT", hidden: true });
  return h("form", { class: "form", onsubmit }, who, field, slot(), submit);
}

/** Error of a login in words: the API speaks to programs of headers; here someone typed. */
function inWords(error) {
  if (error.status !== 401) throw error;
  throw new Problem({ status: 401, title: "This token is not known", detail: "It may be mistyped, revoked, or expired." });
}
