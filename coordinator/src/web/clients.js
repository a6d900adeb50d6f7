// Shared parts of clients' dialogs: their state in words, and the file that is shown once.

import { h } from "./dom.js";
import { badge, button, copyButton, icon, snippet } from "./ui.js";
import { dialog } from "./forms.js";
import { ago } from "./words.js";

const STATES = { disabled: ["quiet", "switched off"], expired: ["warn", "expired"], "no-gateway": ["bad", "no gateway"] };

export function clientBadge(client) {
  const [tone, text] = STATES[client.state] ?? (client.live?.online ? ["good", "connected"] : ["quiet", client.live ? "not connected" : "never connected"]);
  return badge(tone, text, { "data-testid": "client-state" });
}

export function staleBadge(client) {
  return client.stale.length > 0 && badge("warn", "old file", { "data-testid": "stale", title: client.stale.join("; ") });
}

export const lastSeen = (client) => (client.live?.handshake_s === undefined ? "" : `handshake ${ago(client.live.handshake_s)}`);

/** Shows a client's newly issued file and its QR code: in this dialog and nowhere else. */
export function showIssued({ client, config, qr, warnings = [] }, onclose) {
  const holdsKey = /^\s*PrivateKey\s*=\s*\S+/m.test(config);
  const saveAs = `${client.name}.conf`;
  dialog(`${client.name} is ready`, (close) => h("div", { class: "stack", "data-testid": "issued" },
    h("div", { class: "note" }, icon("warn"), h("div", null, holdsKey
      ? [h("strong", null, "Shown only now."), h("p", null, "The private key is in here and nowhere else: the coordinator does not keep it. Whoever has this file is this client.")]
      : [h("strong", null, "Put in the private key."), h("p", null, "You gave the public key, so only you have the private one: it belongs where the file says so.")])),
    warnings.map((warning) => h("div", { class: "note" }, icon("warn"), h("p", null, warning))),
    h("div", { class: "issued" },
      h("div", { class: "stack" }, qr && holdsKey ? h("img", { class: "qr", alt: `QR code of the file for ${client.name}`, src: pictureOf(qr), "data-testid": "qr" }) : h("p", { class: "lead" }, "No QR code: it would be no use without the private key, or the file is too long."),
        qr && holdsKey && h("p", { class: "hint" }, "In the WireGuard app: +, then “Scan from QR code”.")),
      h("div", { class: "stack" }, h("div", { class: "chips" }, download(saveAs, config), copyButton(config, "Copy")),
        h("details", { class: "more", open: matchMedia("(min-width: 701px)").matches }, h("summary", null, "The file as text"), snippet(config, { name: `File for ${client.name}`, testid: "config", label: null })))),
    h("div", { class: "buttons" }, button("Done", close, { kind: "primary" }))), { wide: true, firm: true, onclose });
}

/** Makes an image of a QR code. An image can run nothing, whatever is in it. */
function pictureOf(svg) {
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
}

export function download(name, content) {
  return button("Download", () => {
    const address = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
    const link = h("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }, { kind: "primary", symbol: "download", "data-testid": "download" });
}

/** Last second of a day in this device's zone, in seconds since 1970. */
export function endOfDay(date) {
  return date ? Math.floor(new Date(`${date}T23:59:59`).getTime() / 1000) : undefined;
}

export function asDate(seconds) {
  if (!seconds) return "";
  const date = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
