// The coordinator's HTTP API. Answers are values; what is refused is thrown as a Problem, in the coordinator's own words.

export class Problem extends Error {
  constructor({ status = 0, type = "unknown", title = "Something went wrong", detail = "" }) {
    super(title);
    Object.assign(this, { status, type, title, detail });
  }
}

/** Token against foreign requests, from the login: it shows that this page asks for a change, not another site with our cookie. */
let csrf = "";
/** Function of the frame that is called when the session is over. */
let onSignedOut = () => {};
/** Function of the frame that is called with the answer to each change. */
let onChanged = () => {};

export function setSession(token, signedOut) {
  csrf = token ?? "";
  onSignedOut = signedOut ?? onSignedOut;
}

export function listenToChanges(changed) {
  onChanged = changed;
}

/** Makes a path of the API from a template with names in it, which it escapes: path`/networks/${net}`. */
export function path(parts, ...names) {
  return parts.reduce((whole, part, i) => whole + encodeURIComponent(names[i - 1]) + part);
}

/** Makes the query of a path from parameters; those without a value are left out. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** Sends a request to the API. Answers { data, etag, next }: `next` is the path of the next page of a list. */
export async function ask(method, where, { body, etag, signal } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET") headers["x-csrf-token"] = csrf;
  if (etag) headers["if-match"] = etag;
  const answer = await send(`/v1${where}`, { method, headers, signal, body: body && JSON.stringify(body) });
  const data = await read(answer);
  if (!answer.ok) throw refused(answer, data, where);
  if (method !== "GET") onChanged(data);
  return { data, etag: answer.headers.get("etag") ?? undefined, next: nextOf(answer) };
}

export const get = async (where, options) => (await ask("GET", where, options)).data;
export const post = async (where, body, options) => (await ask("POST", where, { body, ...options })).data;
export const put = async (where, body, options) => (await ask("PUT", where, { body, ...options })).data;
export const patch = async (where, body, options) => (await ask("PATCH", where, { body, ...options })).data;
export const remove = async (where, options) => (await ask("DELETE", where, options)).data;

/** Reads a resource to be edited: { where, data, etag }. */
export async function opened(where) {
  return { where, ...(await ask("GET", where)) };
}

/**
 * Changes what was opened, unless someone else did meanwhile: that is shown first (`reload`), and the next try is about
 * the thing as it is then.
 */
export async function save(thing, method, body, reload) {
  try {
    return await ask(method, thing.where, { body, etag: thing.etag });
  } catch (error) {
    if (error.status === 412) {
      thing.etag = (await ask("GET", thing.where)).etag;
      reload();
    }
    throw error;
  }
}

/** Reads a whole list of the API, page by page. */
export async function list(where) {
  const all = [];
  for (let next = where; next; ) {
    const page = await ask("GET", next);
    all.push(...page.data);
    next = page.next;
  }
  return all;
}

async function send(url, request) {
  try {
    return await fetch(url, { credentials: "same-origin", cache: "no-store", redirect: "error", ...request });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "Is it running, and is this device online? Nothing was changed, as far as this page can tell.";
    throw new Problem({ type: "unreachable", title: "The coordinator can't be reached", detail });
  }
}

async function read(answer) {
  const text = await answer.text();
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refused(answer, data, where) {
  if (answer.status === 401 && where !== "/login" && where !== "/me") onSignedOut();
  if (answer.status === 412) {
    const detail = "The page behind shows how it is now. Save again if your change is still right.";
    return new Problem({ status: 412, type: "changed-meanwhile", title: "Someone else changed this meanwhile", detail });
  }
  if (data?.type === "bad-request") data.title = data.title.replace(/^the body can't be read: /, "").replace(/ at line \d+ column \d+$/, "");
  return new Problem({ title: `The coordinator answered ${answer.status}`, ...data, status: answer.status });
}

/** Path of a list's next page, from the Link header of an answer (RFC 8288): <…>; rel="next" */
function nextOf(answer) {
  const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(answer.headers.get("link") ?? "");
  return link ? link[1].replace(/^.*?\/v1/, "") : undefined;
}
