// A router's web server as LuCI's pages see it: their files, the stand-in's around them, and ubus. What ubus is asked goes
// to the lab's router, or to a scene that was set up.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { lab } from "./kit.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const app = join(root, "openwrt-package/luci-app-gatewrt");
const standIn = join(root, "tests/luci/stand-in");
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".html": "text/html" };

/** The address in the browser is the one of LuCI's menu. */
const MENU = "/cgi-bin/luci/";
const menu = JSON.parse(readFileSync(join(app, "root/usr/share/luci/menu.d/luci-app-gatewrt.json"), "utf8"));
const acl = JSON.parse(readFileSync(join(app, "root/usr/share/rpcd/acl.d/luci-app-gatewrt.json"), "utf8"))["luci-app-gatewrt"];

const UBUS_DENIED = 6;

/** `answers`: what each method of `gatewrt` answers instead of a router. `writes`: whether the user may change anything. */
let scene = { answers: null, writes: true };
export const set = (next) => (scene = { answers: null, writes: true, ...next });

/** As rpcd looks into the app's own list of what is permitted. */
function permits({ object, method, params }) {
  const lists = scene.writes ? [acl.read, acl.write] : [acl.read];
  if (object !== "uci") return lists.some((list) => list.ubus[object]?.includes(method));
  return (method === "get" ? [acl.read] : lists.slice(1)).some((list) => list.uci.includes(params.config));
}

async function ubus(asked) {
  if (!permits(asked)) return [UBUS_DENIED];
  const answer = asked.object === "gatewrt" && scene.answers ? scene.answers[asked.method] : await lab("ubus", asked);
  if (typeof answer === "number") return [answer];
  // Of an object without members ubus sends nothing at all.
  return Object.keys(answer ?? {}).length ? [0, answer] : [0];
}

function html(view) {
  const page = JSON.stringify({ view, writes: scene.writes });
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${view}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/style.css"><body><main id="maincontent"><h1>LuCI</h1><div id="view"></div></main>
<script type="application/json" id="page">${page}</script><script src="/luci.js"></script><script src="/form.js"></script></body></html>`;
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Content and its type; nothing for what there is not. */
async function content(request) {
  const { pathname } = new URL(request.url, "http://router");
  if (pathname === "/ubus") return [JSON.stringify(await ubus(JSON.parse(await body(request)))), "application/json"];
  const view = pathname.startsWith(MENU) && menu[pathname.slice(MENU.length)]?.action.path;
  if (view) return [html(view), TYPES[".html"]];
  const path = pathname.startsWith("/luci-static/") ? join(app, "htdocs", pathname) : join(standIn, pathname);
  return [readFileSync(path), TYPES[extname(path)]];
}

export const serve = (port) => new Promise((listening) => {
  const server = createServer((request, response) => content(request).then(
    ([text, type]) => response.writeHead(200, { "content-type": type }).end(text),
    (error) => response.writeHead(error.code === "ENOENT" ? 404 : 500).end(`${error.stack}`),
  ));
  server.listen(port, "127.0.0.1", () => listening(server));
});
