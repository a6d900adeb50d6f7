// Audit log, newest first.

import { h } from "../dom.js";
import { ask, path, query } from "../api.js";
import { act, button, empty, section, table, titleBar } from "../ui.js";
import { deed, moment } from "../words.js";

const PAGE = 50;

export default {
  title: ({ net }) => (net ? "Log" : "Log of all changes"),
  async load({ net }) {
    const { data, next } = await ask("GET", `/audit${query({ network: net, limit: PAGE })}`);
    return { entries: data, next };
  },
  draw({ net, data, page }) {
    const title = titleBar(this.title({ net }));
    if (data.entries.length === 0) return [title, empty("Nothing was changed yet.")];
    const columns = ["When", "Who", "What", ...(net ? [] : ["Network"]), "Detail"];
    return [title, section("Changes", {}, table("Log of changes", columns, data.entries.map((entry) => row(entry, net)))),
      data.next && h("div", { "data-slot": "" }, h("div", { class: "slot", role: "alert", "data-keep": "" }), button("Older", (event) => act(event.currentTarget, () => more(data, page))))];
  },
};

async function more(data, page) {
  const older = await ask("GET", data.next);
  data.entries.push(...older.data);
  data.next = older.next;
  page.draw();
}

function row(entry, net) {
  const network = entry.network && h("a", { href: path`#/n/${entry.network}` }, entry.network);
  return { key: `${entry.id}`, cells: [
    h("span", { class: "when" }, moment(entry.at)), [entry.who, entry.from && h("small", { class: "mono" }, entry.from)],
    deed(entry.action, entry.target), ...(net ? [] : [network ?? ""]), entry.detail ? h("span", { class: "detail" }, inWords(entry.detail)) : "",
  ] };
}

/** Request of an audit entry in words: {"prefix":"192.168.1.0/24","nat":true} → "prefix 192.168.1.0/24, nat on" */
function inWords(detail) {
  let said;
  try {
    said = JSON.parse(detail);
  } catch {
    return detail;
  }
  if (said === null || typeof said !== "object") return String(said ?? "");
  return Object.entries(said).map(([name, value]) => `${name.replaceAll("_", " ")} ${valueOf(value)}`).join(", ");
}

function valueOf(value) {
  if (typeof value === "boolean") return value ? "on" : "off";
  if (value === null) return "none";
  if (Array.isArray(value)) return value.length ? value.map(valueOf).join(" ") : "none";
  return typeof value === "object" ? JSON.stringify(value) : value === "" ? "none" : String(value);
}
