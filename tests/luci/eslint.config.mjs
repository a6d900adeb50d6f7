// What LuCI's browser code may look like. LuCI runs each file as the body of a function: “return” stands at its top, and
// 'require a.b as c' lines name what is in scope. A bare string as a child is HTML to LuCI: children come in an array.

import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const app = join(root, "openwrt-package/luci-app-gatewrt/htdocs");
const files = readdirSync(app, { recursive: true }).filter((file) => file.endsWith(".js")).map((file) => join(app, file));

/** What a file's own 'require' lines bring into scope. */
function required(file) {
  const lines = readFileSync(file, "utf8").matchAll(/^'require ([\w.-]+)(?: as (\w+))?';$/gm);
  return Object.fromEntries([...lines].map(([, path, as]) => [as ?? path.replace(/\W/g, "_"), "readonly"]));
}

const array = "must be an array: LuCI reads a bare string as HTML";
const html = [
  { selector: 'CallExpression[callee.name="E"]:not([arguments.0.type="Literal"])', message: "E() takes a tag's name, nothing with markup" },
  { selector: 'CallExpression[callee.name="E"] > Literal.arguments:nth-child(1)[value=/[^a-z0-9]/]', message: "E() takes a tag's name, nothing with markup" },
  { selector: 'CallExpression[callee.name="E"] > :matches(Literal, TemplateLiteral, Identifier, MemberExpression, BinaryExpression, ConditionalExpression).arguments:nth-child(3)', message: `children ${array}` },
  { selector: 'CallExpression[callee.name="E"] > CallExpression.arguments:nth-child(3)[callee.name="_"]', message: `children ${array}` },
  { selector: 'CallExpression[callee.name="E"] > CallExpression.arguments:nth-child(3)[callee.property.name="format"]', message: `children ${array}` },
  { selector: 'CallExpression[callee.property.name=/^(showModal|addNotification)$/] > .arguments:first-child:matches(Literal[value!=null], TemplateLiteral)', message: `a title ${array}` },
  { selector: 'CallExpression[callee.property.name=/^(showModal|addNotification)$/] > CallExpression.arguments:first-child[callee.name="_"]', message: `a title ${array}` },
  { selector: 'MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]', message: "never markup out of a string" },
];

const rules = {
  "array-callback-return": "error", "no-alert": "error", "no-console": "error", "no-const-assign": "error",
  "no-dupe-keys": "error", "no-duplicate-case": "error", "no-else-return": "error", "no-eval": "error", "no-fallthrough": "error", "no-implied-eval": "error",
  "no-redeclare": "error", "no-restricted-syntax": ["error", ...html], "no-self-assign": "error", "no-shadow": "error", "no-undef": "error", "no-unreachable": "error",
  "no-unused-vars": ["error", { varsIgnorePattern: "^(view|baseclass)$" }], "no-use-before-define": ["error", { functions: false }], "no-var": "error",
  "prefer-const": "error", "strict": ["error", "global"],
};

const globals = { E: "readonly", L: "readonly", _: "readonly", atob: "readonly", document: "readonly", window: "readonly" };

export default files.map((file) => ({
  files: [relative(root, file)],
  languageOptions: { ecmaVersion: 2020, sourceType: "script", globals: { ...globals, ...required(file) }, parserOptions: { ecmaFeatures: { globalReturn: true } } },
  linterOptions: { reportUnusedDisableDirectives: "error" },
  rules,
}));
