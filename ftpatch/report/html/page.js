"use strict";
// The page as a whole: which file is shown, what the address bar says about it, the colour scheme, keys.

const SCHEMES = { auto: "Automatic", light: "Light", dark: "Dark" };

/** One file or tree of the page with its panels, made when they come into view. */
class View {
  constructor(index, data, app) {
    Object.assign(this, { index, data, file: data.file, kind: data.kind, app, panels: [], maps: [] });
    this.element = document.getElementById(`view-${index}`);
  }

  /** Make the panels; called when the view is shown for the first time. */
  open() {
    if (this.opened) return;
    this.opened = true;
    [this.main] = this.data.tables;
    for (const table of this.data.tables) {
      const root = document.getElementById(`table-${this.index}-${table.name}`);
      if (!root) continue;
      const panel = new Panel(root, table, this, (from, how) => this.app.write(from, how));
      this.panels.push(panel);
      panel.refresh();
    }
    const sites = this.panel("sites") ?? this.panel("calls");
    const map = document.getElementById(`map-${this.index}`);
    if (map && sites) this.maps.push(new AddressMap(map, sites));
    for (const chart of this.element.querySelectorAll("svg.distances")) if (sites) distanceFilters(chart, sites);
    if (sites) nameEdits(this.element, sites);
    if (sites) legendFilters(this.element.querySelector(".legend"), sites);
  }

  /** The panel that a hash without a table is about: the one that has the function, that with slots, or the first. */
  panelFor(values) {
    const name = values.get("func");
    const has = (panel) => (name === null ? values.has("row") && panel.table.bySlot : panel.table.named(name).length);
    const fits = (panel) => (name === null ? false : panel.table.by.function);
    return this.panels.find(has) ?? this.panels.find(fits) ?? this.panels[0];
  }

  /** The panel of a table; without a name the first one. */
  panel(name) {
    return name ? this.panels.find((panel) => panel.table.name === name) : this.panels[0];
  }
}

class App {
  constructor() {
    this.views = readPayload().map((data, index) => new View(index, data, this));
    this.shown = 0;
    this.picker = document.getElementById("pick-view");
    this.picker?.addEventListener("change", () => this.go(`#view=${this.picker.value}`));
    addEventListener("popstate", () => this.read());
    addEventListener("hashchange", () => this.read());
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("beforeprint", () => this.print());
    addEventListener("afterprint", () => this.printed());
    matchMedia("print").addEventListener("change", (event) => (event.matches ? this.print() : this.printed()));
    this.show(0);
    this.read();
  }

  show(index) {
    const views = document.querySelectorAll("main > .view");
    views.forEach((view, i) => (view.hidden = i !== index));
    this.shown = index;
    if (this.picker) this.picker.value = String(index);
    this.views[index]?.open();
  }

  print() {
    for (const panel of this.views[this.shown]?.panels ?? []) panel.print();
    this.unfolded ??= [...document.querySelectorAll("main details:not(.menu, [open])")];
    for (const details of this.unfolded) details.open = true;
  }

  /** Fold again what was unfolded for the paper. */
  printed() {
    for (const details of this.unfolded ?? []) details.open = false;
    this.unfolded = null;
  }

  go(hash) {
    history.pushState(null, "", hash);
    this.read();
  }

  /** Write the state of the panel that was used last into the address bar. */
  write(panel, how) {
    const { state } = panel;
    const values = new URLSearchParams(panel.prefix());
    if (state.q) values.set("q", state.q);
    for (const [key, wanted] of Object.entries(state.filters)) for (const value of wanted) values.append(key, value);
    if (state.range) values.set("range", spelledRange(state.range));
    if (state.bytes) values.set("bytes", state.bytes.join(".."));
    if (state.sort) values.set("sort", state.sort);
    if (state.at !== null) for (const [key, value] of Object.entries(panel.table.reference(state.at))) values.set(key, value);
    const hash = hashOf(values);
    if (hash === location.hash || (hash === "#" && !location.hash)) return;
    try {
      if (how === "push") history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    } catch {
      // a browser that counts too many changes: the address bar is a step behind, the page is not
    }
    this.seen = location.hash;
  }

  /** Show what the address bar says. */
  read() {
    if (location.hash === this.seen && this.seen !== undefined) return;
    this.seen = location.hash;
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) {
      this.anchor(text);
      return;
    }
    const values = new URLSearchParams(text.replaceAll("+", "%2B"));
    const view = Number(values.get("view") ?? values.get("image") ?? (values.has("func") ? this.viewOf(values.get("func")) : 0));
    const exists = Number.isInteger(view) && view >= 0 && view < this.views.length;
    this.show(exists ? view : 0);
    const shown = this.views[this.shown];
    const named = values.get("table");
    const panel = (named && shown?.panel(named)) || shown?.panelFor(values);
    if (!panel) return;
    this.restore(panel, values);
    if (named && panel.table.name !== named) panel.say(`There is no table ${named} for ${panel.table.file}.`, true);
    if (!exists) panel.say(`This page has ${counted(this.views.length, "file")}; there is none of number ${values.get("view") ?? values.get("image")}.`, true);
  }

  /** The first view that has a site of this function, or the first one. */
  viewOf(name) {
    const index = this.views.findIndex((view) => view.data.tables.some((table) => table.named(name).length));
    return Math.max(0, index);
  }

  restore(panel, values) {
    const { table } = panel;
    const { unknown, ...state } = stateOf(values, panel);
    panel.state = state;
    const wanted = this.wantedRow(values, panel);
    panel.state.at = wanted.index;
    panel.refresh();
    if (wanted.index !== null) panel.grid.activate(panel.rows.indexOf(wanted.index), false);
    if (unknown.length) panel.say(`This table has no ${unknown.join(", no ")}.`, true);
    if (wanted.text) {
      panel.say(wanted.text, wanted.index === null);
      panel.offer(wanted.names ?? []);
    }
    const asked = ["func", "row", "at", "q"].some((key) => values.has(key)) || values.has("table");
    if (asked) panel.root.closest("section").scrollIntoView({ block: "start" });
    if (table.n && wanted.index !== null) panel.grid.element.focus({ preventScroll: true });
  }

  /** The row that the hash names: {index, text to say, names to offer}. */
  wantedRow(values, panel) {
    const { table } = panel;
    if (values.has("func")) {
      const name = values.get("func");
      const rows = table.named(name);
      if (!rows.length) {
        const names = table.namesLike(name);
        return { index: null, names, text: `No site of a function named ${name} in ${table.file}.${names.length ? " Do you mean " : ""}` };
      }
      const several = rows.length > 1;
      const text = several ? `${grouped(rows.length)} functions are named so; this is the first. All: ` : "";
      return { index: rows[0], text, names: several ? [name] : [] };
    }
    const key = values.has("row") ? "row" : values.has("at") ? "at" : null;
    if (!key) return { index: null };
    if (key === "row" && !table.bySlot && table.by.module) {
      return { index: null, text: `Each module counts its own rows: a search for row:${values.get(key)} finds all of that number.` };
    }
    const number = /^\d+$/.test(values.get(key)) ? Number(values.get(key)) : -1;
    const index = key === "row" ? table.ofSlot(number) : number < table.n ? number : -1;
    if (index >= 0) return { index };
    return { index: null, text: `There is no row ${values.get(key)} in the table ${table.title} of ${table.file}.` };
  }

  /** An anchor of the page: in another view, or in something folded. */
  anchor(id) {
    let target = null;
    try {
      target = document.getElementById(decodeURIComponent(id));
    } catch {
      return; // half a character: no anchor of this page
    }
    if (!target) return;
    const view = target.closest(".view");
    if (view) this.show([...document.querySelectorAll("main > .view")].indexOf(view));
    for (let box = target; box; box = box.parentElement) if (box.localName === "details") box.open = true;
    target.scrollIntoView({ block: "start" });
  }

  key(event) {
    const writes = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
    const panel = event.target.closest?.(".table");
    const search = panel ? panel.querySelector("input[type=search]") : this.views[this.shown]?.panel()?.search;
    if (!search) return;
    search.focus();
    search.select();
    event.preventDefault();
  }
}

/** A hash of these values. A plus sign that people type in one is a plus sign. */
function hashOf(values) {
  return `#${String(new URLSearchParams(values)).replaceAll("+", "%20")}`;
}

/** `0x10-0x20`, and in a file that is not linked `@` the section's number behind it. */
function spelledRange([from, to, shndx]) {
  return `0x${from.toString(16)}-0x${to.toString(16)}${shndx === undefined ? "" : `@${shndx}`}`;
}

/** Search, filters, sort of a hash; `unknown` names what this table does not have. */
function stateOf(values, panel) {
  const state = { ...emptyState(), q: (values.get("q") ?? "").slice(0, 1000), unknown: [] };
  for (const each of panel.filters) {
    const exists = (value) => each.data.values.includes(value);
    const wanted = values.getAll(each.key).flatMap((value) => (exists(value) ? [value] : value.split(",")));
    state.unknown.push(...wanted.filter((value) => !exists(value)).map((value) => `${each.key} ${value}`));
    if (wanted.some(exists)) state.filters[each.key] = new Set(wanted.filter(exists));
  }
  const [, from, to, shndx] = values.get("range")?.match(/^(0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,17})(?:@(\d{1,9}))?$/i) ?? [];
  if (from) state.range = [BigInt(from), BigInt(to), ...(shndx ? [Number(shndx)] : [])];
  else if (values.has("range")) state.unknown.push(`range ${values.get("range")}`);
  const [, low, high] = values.get("bytes")?.match(/^(-?\d{1,19})\.\.(-?\d{1,19})$/) ?? [];
  if (low) state.bytes = [Number(low), Number(high)];
  const sort = values.get("sort");
  if (sort && Object.hasOwn(panel.table.by, sort.replace(/^-/, ""))) state.sort = sort;
  else if (sort) state.unknown.push(`column ${sort.replace(/^-/, "")}`);
  return state;
}

/** Edits of sites bear the functions' names. */
function nameEdits(view, panel) {
  for (const place of view.querySelectorAll(".name-of-row")) {
    const index = panel.table.ofSlot(Number(place.dataset.row));
    if (index >= 0) place.textContent = panel.nameOf(index);
  }
}

/** A press on a state of the legend shows its sites alone. */
function legendFilters(legend, panel) {
  for (const item of legend?.querySelectorAll("[data-state]") ?? []) {
    const key = ["state", "status"].find((name) => panel.table.by[name]?.data.values?.includes(item.dataset.state));
    if (!key || !panel.menus[key]) continue;
    const button = make("button", { type: "button", class: "legend-button", title: "Show these sites alone; again: all" });
    button.append(...item.childNodes);
    item.append(button);
    button.addEventListener("click", () => panel.toggleOnly(key, item.dataset.state));
  }
}

/** A press on a bar of distances shows its sites. */
function distanceFilters(chart, panel) {
  if (chart.dataset.column !== "distance") return;
  for (const bar of chart.querySelectorAll("[data-low]")) {
    const { low, high, state } = bar.dataset;
    // bars of untouched sites count whatever a call reaches from; the others those of their state
    const known = state !== "ready" && panel.menus.state && panel.table.by.state.data.values.includes(state);
    const show = () => {
      panel.state = { ...emptyState(), sort: panel.state.sort, bytes: [Number(low), Number(high)] };
      if (known) panel.state.filters.state = new Set([state]);
      panel.update("push");
      panel.say(`Sites by their distance: ${bar.querySelector("title")?.textContent ?? ""}`);
    };
    bar.setAttribute("tabindex", "0");
    bar.setAttribute("role", "button");
    bar.setAttribute("aria-label", bar.querySelector("title")?.textContent ?? "");
    bar.addEventListener("click", show);
    bar.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      show();
    });
  }
}

/** The switch between light and dark; the choice is kept where the browser lets a page keep something. */
function colourScheme() {
  const select = document.getElementById("scheme");
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("ftpatch-scheme");
      localStorage.setItem("ftpatch-scheme", value);
    } catch {
      // a page that may not keep anything follows the system each time
    }
    return null;
  };
  const use = (scheme) => {
    if (scheme === "auto") delete document.documentElement.dataset.scheme;
    else document.documentElement.dataset.scheme = scheme;
    select.value = scheme;
  };
  select.replaceChildren(...Object.entries(SCHEMES).map(([value, text]) => make("option", { value }, text)));
  use(Object.hasOwn(SCHEMES, kept() ?? "") ? kept() : "auto");
  select.addEventListener("change", () => {
    use(select.value);
    kept(select.value);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  colourScheme();
  // the text of the page is painted before the tables are made
  requestAnimationFrame(() => setTimeout(() => {
    window.ftpatch = new App();
    document.documentElement.classList.add("ready");
  }, 0));
});
