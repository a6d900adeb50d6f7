// `uci` and `form` as the pages of luci-app-gatewrt use them. Tabs stand below one another, a grid's sections are open
// with all their options, and a list is a box with a line for each of its values.

"use strict";

/** Sections by their names, as the server read them. */
let sections = {};

const uci = {
  load: async () => (sections = (await ubus("uci", "get", { config: "gatewrt" })).values),
  sections: (_config, type) => Object.values(sections).filter((section) => section[".type"] === type),
  get: (_config, name, option) => (option ? sections[name]?.[option] : sections[name]),
  add: (_config, type, name) => (sections[name] = { ".type": type, ".name": name }),
  set: (_config, name, option, value) => (sections[name][option] = value),
  unset: (_config, name, option) => delete sections[name][option],
  remove: (_config, name) => delete sections[name],
  save: () => ubus("uci", "set", { config: "gatewrt", values: sections }),
};

let ids = 0;

class Value {
  constructor(section, name, title, description) {
    Object.assign(this, { section, name, title, description, choices: [], needs: [], inputs: {} });
  }

  value(key, text) {
    this.choices.push([key, text ?? key]);
  }

  depends(needs, value) {
    this.needs.push(typeof needs === "string" ? { [needs]: value } : needs);
  }

  render(name) {
    const id = `input-${++ids}`;
    const given = uci.get("gatewrt", name, this.name) ?? this.default ?? "";
    this.inputs[name] = this.input(id, given);
    this.inputs[name].id = id;
    return E("div", { "data-option": `${name}.${this.name}` }, [
      E("label", { for: id }, this.title), " ", this.inputs[name], ...(this.also?.(id) ?? []), E("div", { class: "hint" }, this.description),
    ]);
  }

  input(id, given) {
    return E("input", { value: given, list: this.choices.length ? `${id}-list` : null, placeholder: this.placeholder });
  }

  also(id) {
    return this.choices.length ? [E("datalist", { id: `${id}-list` }, this.choices.map(([key, text]) => E("option", { value: key }, [text])))] : [];
  }

  formvalue(name) {
    return this.inputs[name].value.trim();
  }

  isActive(name) {
    const fits = (need) => Object.entries(need).every(([other, wanted]) => {
      const value = this.section.options.find((option) => option.name === other).formvalue(name);
      return wanted instanceof RegExp ? wanted.test(value) : value === wanted;
    });
    return !this.needs.length || this.needs.some(fits);
  }

  parse(name) {
    const value = this.formvalue(name);
    const empty = !value.length;
    if (!this.isActive(name) || (empty && this.rmempty !== false)) return uci.unset("gatewrt", name, this.name);
    if (empty) throw new Error(`${this.title}: this must not be empty`);
    for (const one of [value].flat()) {
      const sound = this.validate?.(name, one) ?? true;
      if (sound !== true) throw new Error(`${this.title}: ${sound}`);
    }
    uci.set("gatewrt", name, this.name, value);
  }
}

class Flag extends Value {
  input(_id, given) {
    return E("input", { type: "checkbox", checked: given === "1" ? "" : null });
  }

  formvalue(name) {
    return this.inputs[name].checked ? "1" : "0";
  }
}

class ListValue extends Value {
  input(_id, given) {
    return E("select", {}, this.choices.map(([key, text]) => E("option", { value: key, selected: key === given ? "" : null }, [text])));
  }

  also() {
    return [];
  }
}

class DynamicList extends Value {
  input(_id, given) {
    return E("textarea", {}, [[given].flat().filter(Boolean).join("\n")]);
  }

  also() {
    return [];
  }

  formvalue(name) {
    return this.inputs[name].value.split("\n").map((line) => line.trim()).filter(Boolean);
  }
}

class Section {
  constructor(map, type, title, description) {
    Object.assign(this, { map, type, title, description, options: [] });
  }

  tab() {}

  taboption(_tab, kind, ...about) {
    return this.option(kind, ...about);
  }

  option(kind, ...about) {
    const option = new kind(this, ...about);
    this.options.push(option);
    return option;
  }

  renderOptions(name) {
    return E("fieldset", { "data-section": name }, [E("legend", {}, [name]), ...this.options.map((option) => option.render(name))]);
  }

  render() {
    return E("div", {}, [E("h3", {}, this.title), E("p", {}, this.description), ...this.names().map((name) => this.renderOptions(name)), ...this.below()]);
  }

  below() {
    return [];
  }
}

class NamedSection extends Section {
  constructor(map, name, ...about) {
    super(map, ...about);
    this.name = name;
  }

  names() {
    return [this.name];
  }
}

class GridSection extends Section {
  names() {
    return uci.sections("gatewrt", this.type).map((section) => section[".name"]);
  }

  handleAdd(_event, name) {
    uci.add("gatewrt", this.type, name);
    this.map.draw();
  }

  below() {
    const name = E("input", { "aria-label": "Name of a new section" });
    return [name, " ", E("button", { click: (event) => this.handleAdd(event, name.value) }, [this.addbtntitle])];
  }
}

class FormMap {
  constructor(_config, title, description) {
    Object.assign(this, { title, description, parts: [], node: E("div", { class: "cbi-map" }) });
    maps.push(this);
  }

  section(kind, ...about) {
    const section = new kind(this, ...about);
    this.parts.push(section);
    return section;
  }

  draw() {
    this.node.replaceChildren(E("h2", {}, this.title), E("p", {}, this.description), ...this.parts.map((part) => part.render()));
  }

  async render() {
    this.draw();
    return this.node;
  }

  async save() {
    this.parts.forEach((part) => part.names().forEach((name) => part.options.forEach((option) => option.parse(name))));
    await uci.save();
  }
}

const maps = [];
Object.assign(L.ready, { uci, form: { Map: FormMap, NamedSection, GridSection, Value, Flag, ListValue, DynamicList, maps } });
