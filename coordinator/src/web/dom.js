// Elements out of plain values. A string always becomes a text node: nothing here can read markup, so that a name that
// someone chose elsewhere is shown as it is written.

const SVG = "http://www.w3.org/2000/svg";
/** Attributes that are set as properties, because as attributes they only say how they began. */
const PROPERTIES = new Set(["value", "checked", "indeterminate"]);

/** Makes an HTML element. `attrs`: `onclick` and the like are functions; `true` is an empty attribute; null, false: none. */
export function h(tag, attrs, ...children) {
  return build(document.createElement(tag), attrs, children);
}

/** Makes an SVG element. */
export function s(tag, attrs, ...children) {
  return build(document.createElementNS(SVG, tag), attrs, children);
}

function build(element, attrs, children) {
  element.handlers = {};
  element.properties = {};
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined) continue;
    if (PROPERTIES.has(name)) {
      element.properties[name] = value;
    } else if (value === false) {
      continue;
    } else if (name.startsWith("on")) {
      if (typeof value !== "function") throw new TypeError(`${name} takes a function`);
      element.handlers[name] = value;
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(element, children);
  // After the children: a select has its value only once its options are there.
  Object.assign(element, element.properties);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Makes `old` look like `fresh`, touching what differs only: focus, selection and what is being typed stay. */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
  } else if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (!old.hasAttribute("data-keep") && !old.hasAttribute("data-busy")) {
    morphAttributes(old, fresh);
    morphChildren(old, fresh);
    morphProperties(old, fresh);
  }
}

/** Key of a node, the same for the same thing in two drawings. */
function keyOf(node) {
  return node.dataset?.key ?? "";
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    const isForPeople = name === "open";
    if (!fresh.hasAttribute(name) && !isForPeople) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
  for (const name of Object.keys(old.handlers ?? {})) if (!fresh.handlers[name]) old[name] = null;
  Object.assign(old, fresh.handlers);
  old.handlers = fresh.handlers;
}

function morphProperties(old, fresh) {
  for (const [name, value] of Object.entries(fresh.properties ?? {})) {
    const isTyping = name === "value" && document.activeElement === old;
    if (!isTyping && old[name] !== value) old[name] = value;
  }
  old.properties = fresh.properties;
}

/** Makes the children of `old` look like those of `fresh`: one with a `data-key` finds its twin anywhere, others by order and kind. */
export function morphChildren(old, fresh) {
  const before = [...old.childNodes];
  const keyed = new Map(before.filter(keyOf).map((child) => [keyOf(child), child]));
  const plain = before.filter((child) => !keyOf(child));
  const wanted = [...fresh.childNodes].map((child) => {
    const twin = twinOf(child, keyed, plain);
    if (twin) morph(twin, child);
    return twin ?? child;
  });
  const stays = new Set(wanted);
  for (const child of before) if (!stays.has(child)) child.remove();
  let place = old.firstChild;
  for (const child of wanted) {
    if (child === place) place = place.nextSibling;
    else old.insertBefore(child, place);
  }
}

/** Finds the old twin of a fresh child, and takes it out of those that are left. */
function twinOf(child, keyed, plain) {
  const key = keyOf(child);
  if (key) {
    const twin = keyed.get(key);
    keyed.delete(key);
    return twin?.nodeName === child.nodeName ? twin : undefined;
  }
  const place = plain.findIndex((other) => other.nodeName === child.nodeName);
  return place < 0 ? undefined : plain.splice(place, 1)[0];
}
