// All networks.

import { h } from "../dom.js";
import { get, post } from "../api.js";
import { isWhole, loadNetworks, mayChange, state, statusOf } from "../state.js";
import { badge, button, empty, icon, titleBar } from "../ui.js";
import { formDialog, nameField, text } from "../forms.js";
import { count, span } from "../words.js";

export default {
  title: () => "Networks",
  async load() {
    const [health] = await Promise.all([get("/health").catch(() => ({})), loadNetworks()]);
    return { health };
  },
  draw({ data, page }) {
    const make = mayChange() && isWhole() && button("New network", () => create(page), { kind: "primary", symbol: "plus" });
    return [titleBar("Networks", { actions: make }), clock(data.health), body()];
  },
};

/** Warning about a clock that went back; nothing while it is right. */
function clock({ clock_behind_s: behind }) {
  return behind > 0 && h("section", { class: "note", "aria-label": "Clock", "data-key": "clock" }, icon("warn"),
    h("div", null, h("strong", null, `The coordinator's clock is ${span(behind)} behind`),
      h("p", null, "It has shown a later time before. Set it, if it is wrong. What has expired stays expired.")));
}

function body() {
  if (state.networks.length === 0) {
    return empty("No network yet. A network is one overlay that routers and phones join; it is isolated from the others.");
  }
  return h("ul", { class: "tiles" }, state.networks.map(tile));
}

function tile(network) {
  const status = statusOf(network.name);
  const online = status?.nodes.filter((node) => node.online).length ?? 0;
  return h("li", { "data-key": network.id }, h("a", { class: "card tile", href: `#/n/${network.name}` },
    h("h2", null, network.name),
    h("p", null, `${network.prefix4} · ${network.prefix6}`),
    h("p", { class: "badges" },
      status?.nodes.length ? badge(online === status.nodes.length ? "good" : "warn", `${online} of ${count(status.nodes.length, "node")} online`) : badge("quiet", "no nodes"),
      status?.warnings.length ? badge("warn", count(status.warnings.length, "warning")) : null)));
}

function create(page) {
  const prefix = (label, name, hint) => text(label, name, { hint });
  formDialog("New network", {
    submit: "Create the network",
    fields: [
      nameField("Name", { longest: 12, "data-first": true }),
      h("details", { class: "more" }, h("summary", null, "Addresses"),
        prefix("IPv4 prefix", "prefix4", "Left empty: a free 10.x.0.0/16"),
        prefix("IPv6 prefix", "prefix6", "Left empty: a random one")),
    ],
    async send({ name, prefix4, prefix6 }) {
      await post("/networks", { name, ...(prefix4 && { prefix4 }), ...(prefix6 && { prefix6 }) });
      await loadNetworks();
      return () => page.go(`#/n/${name}`);
    },
  });
}
