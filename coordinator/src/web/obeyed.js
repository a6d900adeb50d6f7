// Who obeys a change: a line at the foot of the page after each change that routers have to obey.

import { h } from "./dom.js";
import { iconButton } from "./ui.js";

/** Time that a line stays which needs no attention, in milliseconds. */
const STAYS_MS = 5000;
/** Largest number of routers that are named. */
const MOST = 8;

const line = h("div", { class: "toast", role: "status", "aria-live": "polite", "data-testid": "obeyed" });
let timer = 0;

/** Says which routers have not confirmed a change, from its answer; nothing if no router has to. */
export function showObeyed(answer) {
  const { applied = [], pending = [] } = answer ?? {};
  if (applied.length + pending.length === 0) return;
  if (!line.isConnected) document.body.append(line);
  clearTimeout(timer);
  const hide = () => line.replaceChildren();
  if (pending.length === 0) {
    line.replaceChildren(h("div", { class: "note info" }, h("div", null, "Done on all routers.")));
    timer = setTimeout(hide, STAYS_MS);
    return;
  }
  const named = pending.slice(0, MOST).map(({ node, why }) => h("li", null, h("strong", null, node), `: ${why}`));
  const rest = pending.length - named.length;
  line.replaceChildren(h("div", { class: "note" },
    h("div", null, "Stored; not yet confirmed by:", h("ul", null, named, rest > 0 && h("li", null, `and ${rest} more`))),
    iconButton("Dismiss", "close", hide)));
}
