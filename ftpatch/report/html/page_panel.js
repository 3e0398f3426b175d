"use strict";
// One table with what belongs to it: search field, filters, counts, the grid, and the chosen row in full.

const SEARCH_HELP = "part of a name · vfs_* · /regex/ · \"whole name\" · 0x address · row:N · !not";
const NAMED = { sites: "Copy what is shown as a list for --func @file", keys: "Copy the keys that are shown, a line each",
  symbols: "Copy the names that are shown, a line each" }; // tables of which names are of use, and how
const MOST_OPTIONS = 200; // values of one menu
const PRINTED = 500; // rows that go on paper
const PLAIN_NAME = /^[A-Za-z_][A-Za-z0-9_.$]{0,510}$/; // what a selector list takes for a name and nothing else
const FORMULA = /^ *[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/; // what a spreadsheet would run

function emptyState() {
  return { q: "", filters: {}, range: null, bytes: null, sort: null, at: null };
}

class Panel {
  /** `changed(panel, how)` is told when the state is another; how: "push" or "replace". */
  constructor(root, table, view, changed) {
    Object.assign(this, { root, table, view, changed, state: emptyState(), rows: [] });
    this.label = `${table.title} of ${table.file}`;
    this.grid = new Grid(table, this.label, {
      choose: (index) => this.choose(index),
      sort: (key) => this.sortBy(key),
      link: (index) => this.link(index),
    });
    this.build();
  }

  build() {
    const id = this.root.id;
    this.search = make("input", { type: "search", id: `${id}-search`, spellcheck: "false", autocomplete: "off",
      autocapitalize: "none", placeholder: "Search", "aria-describedby": `${id}-help` });
    this.count = make("p", { class: "count", role: "status", "aria-live": "polite" });
    this.message = make("p", { class: "message", role: "status", "aria-live": "polite" });
    this.filters = this.table.columns.filter((each) => each.filter && each instanceof EnumColumn);
    this.menus = Object.fromEntries(this.filters.map((each) => [each.key, this.menu(each)]));
    this.chips = make("span", { class: "chips" });
    this.details = make("div", { class: "chosen", role: "region", "aria-label": `Chosen row of ${this.table.title}` });
    this.paper = make("div", { class: "paper" });
    this.clear = this.button("Clear", "Clear search and filters", () => this.reset());
    const named = NAMED[this.table.name];
    this.root.replaceChildren(
      make("div", { class: "tools" },
        make("label", { class: "search", for: this.search.id }, make("span", { class: "unseen" }, `Search ${this.label}`), this.search),
        ...Object.values(this.menus).map((menu) => menu.element), this.chips, this.clear,
        make("span", { class: "push" }),
        named ? this.button("Copy names", named, () => this.copyNames()) : "",
        this.button("CSV", "Save what is shown as CSV", () => this.save())),
      make("p", { class: "hint", id: `${id}-help` }, SEARCH_HELP),
      make("div", { class: "line" }, this.count, this.message),
      this.grid.element, this.details, this.paper);
    this.search.addEventListener("input", () => this.typed());
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.grid.start();
    this.showChosen();
  }

  button(text, title, action) {
    const button = make("button", { type: "button", class: "button", title }, text);
    button.addEventListener("click", action);
    return button;
  }

  /** A menu of a column's values, each with the number of rows it would leave; filled when it is first opened. */
  menu(each) {
    const chosen = make("span", { class: "picked" });
    const summary = make("summary", { class: "button" }, each.title, chosen);
    const list = make("fieldset", {}, make("legend", { class: "unseen" }, `Filter by ${each.title}`));
    const element = make("details", { class: "menu" }, summary, list);
    const menu = { element, options: [], chosen, each, list };
    element.addEventListener("toggle", () => element.open && this.fillMenu(menu));
    element.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !element.contains(event.relatedTarget)) element.open = false;
    });
    return menu;
  }

  /** The values that most rows have. */
  fillMenu(menu) {
    if (menu.options.length) return;
    const { each, list } = menu;
    const totals = new Map();
    for (const code of each.data.codes) if (code !== null) totals.set(code, (totals.get(code) ?? 0) + 1);
    const codes = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a) || a - b);
    menu.options = codes.slice(0, MOST_OPTIONS).map((code) => this.option(each, code));
    list.append(...menu.options.map((option) => option.element));
    const left = codes.length - menu.options.length;
    if (left > 0) list.append(make("p", { class: "hint more-values" }, `${counted(left, "value")} more: search for them`));
    this.showMenus(this.counts);
  }

  option(each, code) {
    const value = String(each.data.values[code]);
    const box = make("input", { type: "checkbox", value });
    const count = make("span", { class: "number" });
    const mark = MARKED.includes(each.key) && /^[a-z_-]+$/.test(value) ? [make("span", { class: `mark state-${value}` })] : [];
    box.addEventListener("change", () => this.filter(each.key, value, box.checked));
    const text = make("span", { class: "value" }, clipped(value, 300));
    return { code, value, box, count, element: make("label", {}, box, ...mark, text, count) };
  }

  // -- what people do ----------------------------------------------------------------------------------------------

  typed() {
    this.pushes ||= this.state.q === "";
    this.state.q = this.search.value;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.finishTyping(), this.table.n > 20000 ? 60 : 0);
  }

  /** Show what was typed, if that has not been done yet. */
  finishTyping() {
    if (!this.timer) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.update(this.pushes ? "push" : "replace");
    this.pushes = false;
  }

  filter(key, value, wanted) {
    const values = (this.state.filters[key] ??= new Set());
    if (wanted) values.add(value);
    else values.delete(value);
    this.update("push");
  }

  /** Only rows of this value; the same again: all. */
  toggleOnly(key, value) {
    const values = this.state.filters[key];
    const only = values?.size === 1 && values.has(value);
    this.state.filters[key] = new Set(only ? [] : [value]);
    this.update("push");
  }

  /** Up, down, and as the table is. */
  sortBy(key) {
    const { sort } = this.state;
    this.state.sort = sort === key ? `-${key}` : sort === `-${key}` ? null : key;
    this.update("push");
  }

  get narrowed() {
    const { state } = this;
    return Boolean(state.q || state.range || state.bytes || Object.values(state.filters).some((set) => set.size));
  }

  reset() {
    if (!this.narrowed) return;
    this.state = { ...emptyState(), sort: this.state.sort, at: this.state.at };
    this.update("push");
    this.search.focus();
  }

  choose(index) {
    const replaced = this.state.at !== null;
    this.state.at = index;
    this.showChosen();
    this.changed(this, replaced ? "replace" : "push");
  }

  key(event) {
    if (event.key === "Escape") {
      const open = this.root.querySelector("details.menu[open]");
      if (open) {
        open.open = false;
        open.querySelector("summary").focus();
      } else if (event.target === this.search && this.search.value) {
        this.search.value = "";
        this.typed();
      } else {
        this.reset();
      }
      event.preventDefault();
    }
    if (event.target === this.search && ["ArrowDown", "Enter"].includes(event.key)) {
      this.finishTyping();
      this.grid.element.focus();
      if (this.rows.length) this.grid.activate(Math.max(0, this.grid.active));
      event.preventDefault();
    }
    const copies = event.key === "c" && (event.ctrlKey || event.metaKey) && event.target === this.grid.element;
    if (copies && getSelection().isCollapsed && this.grid.chosen !== null) {
      this.copyRow();
      event.preventDefault();
    }
  }

  // -- what is shown ------------------------------------------------------------------------------------------------

  /** The state as it is: rows, counts, menus; `how` is for the history. */
  update(how) {
    this.refresh();
    this.changed(this, how);
  }

  refresh() {
    const { state, table } = this;
    if (this.search.value !== state.q) this.search.value = state.q;
    const query = parseQuery(state.q, table);
    this.say(query.error ?? "", Boolean(query.error));
    this.search.setAttribute("aria-invalid", String(Boolean(query.error)));
    let chosen;
    try {
      chosen = select(table, state, query.error ? { test: null } : query);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.say(error.message, true);
      return;
    }
    this.rows = chosen.rows;
    this.grid.show(this.rows, state.sort);
    this.counts = chosen.counts;
    this.showMenus(this.counts);
    this.showChips();
    const all = this.rows.length === table.n;
    this.count.textContent = all ? counted(table.n, "row") : `${grouped(this.rows.length)} of ${counted(table.n, "row")}`;
    if (table.truncated) this.count.append(`; ${grouped(table.truncated)} more are not in this page`);
    this.clear.hidden = !this.narrowed;
    if (!this.rows.length && !query.error) this.nothing(query);
    this.showChosen();
    if (matchMedia("print").matches) this.print();
  }

  /** What to say of a search that leaves no row. */
  nothing(query) {
    const near = query.nearest?.();
    if (near) {
      const name = this.nameOf(near.row);
      this.say(`There is no site at ${this.state.q.trim()}; the one in front of it is 0x${near.behind.toString(16)} bytes away: `);
      this.message.append(this.act(name, () => this.go(near.row)));
      return;
    }
    const names = /^[\w.$"]+$/.test(this.state.q.trim()) ? this.table.namesLike(this.state.q.trim().replaceAll('"', "")) : [];
    this.say(names.length ? "Nothing passes. Do you mean " : "Nothing passes this search and these filters.");
    this.offer(names);
  }

  /** Append names, each of which can be pressed. */
  offer(names) {
    names.forEach((name, i) => {
      this.message.append(i ? ", " : "", this.act(name, () => this.searchFor(`"${name}"`)));
    });
    if (names.length) this.message.append("?");
  }

  searchFor(text) {
    this.state = { ...emptyState(), q: text, sort: this.state.sort };
    this.update("push");
  }

  act(text, action) {
    const button = make("button", { type: "button", class: "inline" }, text);
    button.addEventListener("click", action);
    return button;
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("bad", bad);
  }

  showMenus(counts) {
    for (const { options, chosen, each } of Object.values(this.menus)) {
      const wanted = this.state.filters[each.key] ?? new Set();
      for (const option of options) {
        option.box.checked = wanted.has(option.value);
        option.count.textContent = grouped(counts[each.key][option.code]);
        option.element.classList.toggle("none", !counts[each.key][option.code]);
      }
      const names = [...wanted];
      chosen.textContent = names.length ? (names.length < 3 ? `: ${clipped(names.join(", "), 60)}` : `: ${names.length} chosen`) : "";
    }
  }

  showChips() {
    const { range, bytes } = this.state;
    const chips = [];
    if (range) chips.push(["range", `0x${range[0].toString(16)} – 0x${(range[1] - 1n).toString(16)}`]);
    if (bytes) chips.push(["bytes", `${binarySize(bytes[0])} – ${binarySize(bytes[1])}`]);
    this.chips.replaceChildren(...chips.map(([key, text]) => {
      const button = make("button", { type: "button", class: "button chip", "aria-label": `${text}: remove this filter` }, text, " ×");
      button.addEventListener("click", () => {
        this.state[key] = null;
        this.update("push");
      });
      return button;
    }));
  }

  nameOf(index) {
    const name = this.table.names.map((each) => each.text(index)).find(Boolean);
    const reference = this.table.reference(index);
    return name || (reference.row ? `row ${reference.row}` : `row ${index + 1}`);
  }

  link(index) {
    const reference = { ...this.prefix(), ...this.table.reference(index) };
    return { href: hashOf(reference), name: this.nameOf(index) };
  }

  /** What a hash needs to lead to this table. */
  prefix() {
    const { view, table } = this;
    return { ...(view.index ? { view: view.index } : {}), ...(table === view.main ? {} : { table: table.name }) };
  }

  /** Show this row, whatever the search and the filters were. */
  go(index) {
    if (!this.rows.includes(index)) this.state = { ...emptyState(), sort: this.state.sort };
    this.state.at = index;
    this.update("push");
  }

  showChosen() {
    const { at } = this.state;
    this.onChoose?.(at);
    if (at === null) {
      this.details.replaceChildren(make("p", { class: "hint" }, "Choose a row with a click or the arrow keys to see all of it."));
      return;
    }
    const list = make("dl", { class: "facts" });
    for (const each of this.table.columns) {
      const text = each.full(at);
      if (!text) continue;
      const code = ["words", "code", "hex"].includes(each.kind) || ["function", "aliases"].includes(each.key);
      list.append(make("div", {}, make("dt", {}, each.title), make("dd", code ? { class: "code" } : {}, text)));
    }
    const hidden = this.rows.includes(at) ? "" : make("p", { class: "hint" }, "This row is hidden by the search or the filters.");
    this.details.replaceChildren(
      make("div", { class: "chosen-head" }, make("strong", { class: "code" }, clipped(this.nameOf(at), 300)), make("span", { class: "push" }),
        ...this.related(at), this.button("Copy row", "Copy the row: names and values", () => this.copyRow())),
      hidden, list);
  }

  /** Links to the edits of a site, or to the site of an edit or finding. */
  related(at) {
    const slot = this.table.slot(at);
    if (slot === null) return [];
    const links = [];
    for (const panel of this.view.panels) {
      if (panel === this || !["sites", "edits", "findings"].includes(panel.table.name)) continue;
      const index = panel.table.ofSlot(slot);
      if (index >= 0) links.push(make("a", { class: "button", href: panel.link(index).href }, `In ${panel.table.title}`));
    }
    return links;
  }
}
