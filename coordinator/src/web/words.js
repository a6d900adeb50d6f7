// Numbers and times as people read them. Pure.

const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** Number of bytes in words: 1536 → "1.5 KB" */
export function bytes(count) {
  let unit = 0;
  let value = count ?? 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Time span in words, in the largest unit that says enough: 90 seconds → "90 s", 7200 → "2 h". */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

export function ago(seconds) {
  return seconds === undefined || seconds === null ? "never" : seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

/** Date and time in this device's zone, of a time in seconds since 1970. */
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function day(seconds) {
  return new Date(seconds * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** Enumeration of words: "a, b and c" */
export function and(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

const DONE = { create: "created", set: "set", unset: "unset", change: "changed", delete: "deleted", remove: "removed", revoke: "revoked", reissue: "reissued", issue: "issued", join: "let in", retry: "retried" };

/** Text of an audit entry: `egress.set` and `node barn` give "set egress of node barn". */
export function deed(action, target) {
  const [subject, verb] = action.split(".");
  const did = DONE[verb] ?? verb;
  if (!did) return `${action} ${target}`;
  return target.split(" ").includes(subject) ? `${did} ${target}` : `${did} ${subject}${target ? ` of ${target}` : ""}`;
}

/** Items of a text field that takes several. */
export function several(text) {
  return text.split(/[\s,;]+/).filter(Boolean);
}
