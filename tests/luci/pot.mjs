#!/usr/bin/env node
// tests/luci/pot.mjs [--check]: writes the template of translations of LuCI's pages anew from what they say, much as LuCI's
// own tools would (without lines, so that it changes with the texts alone); with --check it fails where the file does not say that. The parser is the linter's.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const lint = createRequire(join(root, "target/tools/luci/package.json"));
const { parse } = createRequire(lint.resolve("eslint"))("espree");
const app = join(root, "openwrt-package/luci-app-gatewrt");
const pot = join(app, "po/templates/gatewrt.pot");
const translated = { "menu.d": "title", "acl.d": "description" };

/** Calls `found` for each call of `_` below `node`. */
function calls(node, found) {
  if (!node || typeof node !== "object") return;
  if (node.type === "CallExpression" && node.callee.name === "_") found(node);
  for (const child of Object.values(node)) (Array.isArray(child) ? child : [child]).forEach((one) => calls(one, found));
}

function fromScript(file, say) {
  const tree = parse(readFileSync(file, "utf8"), { ecmaVersion: 2020, loc: true, ecmaFeatures: { globalReturn: true } });
  calls(tree, ({ arguments: [text, context], loc }) => {
    const sound = typeof text?.value === "string" && (!context || typeof context.value === "string");
    if (!sound) throw new Error(`${relative(root, file)}:${loc.start.line}: _() takes a text as it stands`);
    say(file, text.value, context?.value);
  });
}

function fromJson(file, say) {
  const key = Object.entries(translated).find(([folder]) => file.includes(folder))?.[1];
  readFileSync(file, "utf8").split("\n").forEach((line) => {
    const value = key && line.match(new RegExp(`"${key}":\\s*("(?:[^"\\\\]|\\\\.)*")`))?.[1];
    if (value) say(file, JSON.parse(value));
  });
}

const quote = (text) => `"${text.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n")}"`;

function template() {
  const said = new Map();
  const say = (file, text, context) => {
    const key = JSON.stringify([text, context]);
    const entry = said.get(key) ?? { text, context, places: [] };
    said.set(key, { ...entry, places: [...new Set([...entry.places, `#: ${relative(app, file)}`])] });
  };
  const files = ["htdocs", "root"].flatMap((folder) => readdirSync(join(app, folder), { recursive: true }).map((file) => join(app, folder, file)));
  for (const file of files.sort()) (file.endsWith(".js") ? fromScript : file.endsWith(".json") ? fromJson : () => {})(file, say);
  const entries = [...said.values()].map(({ text, context, places }) =>
    [...places, ...(context ? [`msgctxt ${quote(context)}`] : []), `msgid ${quote(text)}`, 'msgstr ""'].join("\n"));
  return `${['msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8"', ...entries].join("\n\n")}\n`;
}

const wanted = template();
if (process.argv[2] !== "--check") writeFileSync(pot, wanted);
else if (readFileSync(pot, "utf8") !== wanted) {
  console.error("openwrt-package/luci-app-gatewrt/po/templates/gatewrt.pot is not what the pages say: node tests/luci/pot.mjs writes it anew");
  process.exit(1);
}
