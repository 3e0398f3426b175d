"use strict";
// The address map, zoomed: sections keep their scale, and cells are counted anew for what is in view.
// Positions are percent of the whole map; `from` and `to` are the edges of what is seen.

const SVG = "http://www.w3.org/2000/svg";
const DEEPEST = 100 / 2 ** 17; // percent of the map that are seen at most zoom
const CELL = 5; // pixels of a cell
const LEVELS = 4; // of density
const CALL_PREFIX = "sc-"; // of lanes of static calls
const MAP_HELP = "Zoom with the wheel, + and −; move with a drag or the arrow keys; Home or 0 shows all; "
  + "Shift and arrows walk over the cells, Enter shows the sites of a cell, or of what is in view, in the table.";

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

class AddressMap {
  constructor(svg, panel) {
    Object.assign(this, { svg, panel, table: panel.table, from: 0, to: 100, cursor: -1 });
    this.relocatable = svg.dataset.relocatable === "true";
    this.sections = [...svg.querySelectorAll("g[data-section]")].map((group) => this.section(group));
    this.lanes = [...svg.querySelectorAll("g[data-state]")].map((group) => ({
      group, state: group.dataset.state, y: Number(group.dataset.y), height: Number(group.dataset.height),
      original: [...group.querySelectorAll("rect.cell")],
    }));
    this.ticks = svg.querySelector("g.ticks");
    this.marker = draw("line", { class: "marker", y1: 0, y2: "100%", visibility: "hidden" });
    svg.append(this.marker);
    this.controls();
    this.listen();
    panel.onChoose = (index) => this.mark(index);
    this.mark(panel.state.at);
  }

  section(group) {
    const { section, shndx, from, to, x, width } = group.dataset;
    return { group, name: section, shndx: Number(shndx), low: BigInt(from), size: Number(BigInt(to) - BigInt(from)),
      x: Number(x), width: Number(width) };
  }

  controls() {
    const id = this.svg.id;
    const button = (text, label, action) => {
      const made = make("button", { type: "button", class: "button", "aria-label": label, title: label }, text);
      made.addEventListener("click", action);
      return made;
    };
    this.readout = make("p", { class: "readout", "aria-live": "off" }, "\u00a0");
    this.place = make("output", { class: "place", "aria-live": "polite" });
    this.resetButton = button("Reset", "Reset: show the whole map", () => this.view(0, 100));
    const box = this.svg.closest(".map-box");
    box.previousElementSibling.append(
      button("+", "Zoom in", () => this.zoom(2)), button("−", "Zoom out", () => this.zoom(0.5)),
      button("←", "Move left", () => this.pan(-0.25)), button("→", "Move right", () => this.pan(0.25)),
      this.resetButton, button("Filter", "Filter: show the sites that are in view in the table", () => this.filterView()), this.place);
    const help = make("p", { class: "hint", id: `${id}-help` }, MAP_HELP);
    box.nextElementSibling.append(this.readout, help);
    for (const [key, value] of Object.entries({ tabindex: "0", role: "application", "aria-describedby": help.id })) this.svg.setAttribute(key, value);
    this.showPlace();
  }

  // -- positions ----------------------------------------------------------------------------------------------------

  /** Of each site that is in a section of the map: its place, by state and in order; made once. */
  get points() {
    if (!this.placed) {
      const { by } = this.table;
      const at = new Map(this.sections.map((section) => [section.shndx, section]));
      this.placed = new Map(this.lanes.map((lane) => [lane.state, []]));
      for (let i = 0; i < this.table.n; i++) {
        const [address, section] = [by.address?.at(i) ?? null, this.sectionOf(i, at)];
        if (address === null || !section) continue;
        const offset = Number(address - section.low);
        this.placed.get(this.stateOf(i))?.push({ i, address, section, x: section.x + (section.width * offset) / section.size });
      }
      for (const points of this.placed.values()) points.sort((a, b) => a.x - b.x);
    }
    return this.placed;
  }

  /** The section of a site, where its address is in it. */
  sectionOf(index, at) {
    const address = this.table.address?.at(index) ?? null;
    const shndx = this.table.by.shndx?.at(index) ?? null;
    const inside = (section) => section && address >= section.low && address - section.low < BigInt(Math.max(1, section.size));
    if (address === null) return null;
    if (shndx !== null) return inside(at.get(shndx)) ? at.get(shndx) : null;
    const name = this.table.by.section?.at(index) ?? null;
    return this.sections.find((section) => (name === null || section.name === name) && inside(section)) ?? null;
  }

  /** The lane of a row: its state, or of a static call its kind. */
  stateOf(index) {
    const { by } = this.table;
    if (by.state ?? by.status) return (by.state ?? by.status).at(index);
    const state = `${CALL_PREFIX}${by.kind?.at(index)}`;
    return this.lanes.some((lane) => lane.state === state) ? state : `${CALL_PREFIX}other`;
  }

  screen(x) {
    return ((x - this.from) / (this.to - this.from)) * 100;
  }

  /** The address at a place of the map, with its section; in a gap the edge of the section in front. */
  address(x) {
    const section = this.sections.findLast((each) => each.x <= x) ?? this.sections[0];
    const share = Math.min(1, Math.max(0, (x - section.x) / section.width));
    return { section, address: section.low + BigInt(Math.round(share * section.size)) };
  }

  spelled({ section, address }) {
    return this.relocatable ? `${section.name}+0x${address.toString(16)}` : `0x${address.toString(16)}`;
  }

  // -- what is in view ----------------------------------------------------------------------------------------------

  view(from, to) {
    const span = Math.min(100, Math.max(DEEPEST, to - from));
    this.from = Math.min(100 - span, Math.max(0, from));
    this.to = this.from + span;
    this.cursor = -1;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.redraw());
  }

  /** Zoom around a place of what is seen: the chosen site where it is in view, else the middle. */
  zoom(factor, share = this.markedShare() ?? 0.5) {
    const span = (this.to - this.from) / factor;
    const fixed = this.from + share * (this.to - this.from);
    this.view(fixed - share * span, fixed + (1 - share) * span);
  }

  pan(share) {
    const shift = share * (this.to - this.from);
    this.view(this.from + shift, this.to + shift);
  }

  get whole() {
    return this.to - this.from >= 100;
  }

  redraw() {
    this.frame = null;
    for (const { group, x, width } of this.sections) {
      const [left, right] = [Math.max(-5, this.screen(x)), Math.min(105, this.screen(x + width))];
      const rect = group.querySelector("rect");
      rect.setAttribute("x", `${left}%`);
      rect.setAttribute("width", `${Math.max(0, right - left)}%`);
      const label = group.querySelector("text");
      label?.setAttribute("x", `${Math.max(0, left)}%`);
      label?.setAttribute("visibility", right > 0 && left < 100 ? "visible" : "hidden");
    }
    for (const lane of this.lanes) this.redrawLane(lane);
    this.ticks.classList.toggle("zoomed", !this.whole);
    this.showPlace();
    this.showMarker();
  }

  redrawLane(lane) {
    for (const cell of lane.group.querySelectorAll("rect.cell")) cell.remove();
    if (this.whole) {
      lane.group.append(...lane.original);
      return;
    }
    const cells = this.cells(lane);
    const most = Math.max(1, ...cells.map((cell) => cell.points.length));
    lane.group.append(...cells.map((cell) => this.cell(lane, cell, most)));
  }

  /** The sites in view, those that fall on the same few pixels of a section together. */
  cells(lane) {
    const points = this.points.get(lane.state) ?? [];
    const slots = Math.max(20, Math.round(this.svg.clientWidth / CELL));
    const cells = [];
    for (let k = lowerBound(points, this.from); k < points.length && points[k].x <= this.to; k++) {
      const slot = Math.floor((this.screen(points[k].x) / 100) * slots);
      const last = cells.at(-1);
      if (last && last.slot === slot && last.points[0].section === points[k].section) last.points.push(points[k]);
      else cells.push({ slot, x: (slot / slots) * 100, width: 100 / slots, points: [points[k]] });
    }
    return cells;
  }

  cell(lane, { x, width, points }, most) {
    const [first, last] = [points[0], points.at(-1)];
    const n = points.length;
    const level = Math.ceil((LEVELS * n) / most);
    const title = n === 1
      ? `${this.panel.nameOf(first.i)}, ${lane.state.replace(CALL_PREFIX, "")}, ${this.spelled(first)}`
      : `${counted(n, this.table.name === "calls" ? "call" : "site")} ${lane.state.replace(CALL_PREFIX, "")} in ${first.section.name} ${this.spelled(first)} – ${this.spelled(last)}`;
    const rect = draw("rect", { class: `cell state-${lane.state} level-${level}`, x: `${x}%`, width: `${width}%`, y: lane.y,
      height: lane.height, "data-n": n, "data-first": first.i, "data-from": `0x${first.address.toString(16)}`,
      "data-to": `0x${(last.address + 1n).toString(16)}`, "data-shndx": first.section.shndx });
    rect.append(draw("title", {}, title));
    return rect;
  }

  showPlace() {
    const [left, right] = [this.address(this.from), this.address(this.to)];
    const times = 100 / (this.to - this.from);
    this.place.textContent = this.whole ? "" : `${times < 10 ? times.toFixed(1) : Math.round(times)}×, ${this.spelled(left)} – ${this.spelled(right)}`;
    this.resetButton.disabled = this.whole;
  }

  /** A line at the site that is chosen in the table. */
  mark(index) {
    this.marked = index;
    this.showMarker();
  }

  /** Where the chosen site is in the view, from 0 to 1; null where it is not. */
  markedShare() {
    const at = new Map(this.sections.map((section) => [section.shndx, section]));
    const section = this.marked === null ? null : this.sectionOf(this.marked, at);
    if (!section) return null;
    const offset = Number(this.table.address.at(this.marked) - section.low);
    const share = this.screen(section.x + (section.width * offset) / section.size) / 100;
    return share >= 0 && share <= 1 ? share : null;
  }

  showMarker() {
    const share = this.markedShare();
    this.marker.setAttribute("visibility", share === null ? "hidden" : "visible");
    for (const end of ["x1", "x2"]) this.marker.setAttribute(end, `${100 * (share ?? 0)}%`);
  }

  // -- what people do -----------------------------------------------------------------------------------------------

  listen() {
    const { svg } = this;
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("pointerdown", (event) => (this.held = { x: event.clientX, from: this.from, to: this.to, moved: false }));
    svg.addEventListener("pointermove", (event) => this.moved(event));
    svg.addEventListener("pointerleave", () => (this.armed = false));
    svg.addEventListener("click", (event) => this.clicked(event));
    svg.addEventListener("keydown", (event) => this.key(event));
    addEventListener("pointerup", () => setTimeout(() => (this.held = null), 0));
    addEventListener("scroll", () => (this.armed = false), { passive: true });
  }

  /** The wheel zooms where the pointer was moved onto the map, and scrolls where the page brought the map under it. */
  wheel(event) {
    const out = event.deltaY > 0;
    if (!event.ctrlKey && !this.armed && document.activeElement !== this.svg) return;
    if (out && this.whole) return;
    event.preventDefault();
    const { left, width } = this.svg.getBoundingClientRect();
    this.zoom(out ? 1 / 1.4 : 1.4, (event.clientX - left) / width);
  }

  moved(event) {
    if (event.movementX || event.movementY) this.armed = true;
    const title = event.target.querySelector?.(":scope > title")?.textContent;
    this.readout.setAttribute("aria-live", "off");
    this.readout.textContent = title ?? "\u00a0";
    if (!this.held || !event.buttons) return;
    const shift = event.clientX - this.held.x;
    if (!this.held.moved && Math.abs(shift) < 4) return;
    if (!this.held.moved) this.svg.setPointerCapture(event.pointerId);
    this.held.moved = true;
    const span = this.held.to - this.held.from;
    const from = this.held.from - (shift / this.svg.clientWidth) * span;
    this.view(from, from + span);
  }

  clicked(event) {
    if (this.held?.moved) return;
    const cell = event.target.closest("rect.cell");
    if (cell) this.use(cell);
  }

  /** Show the sites of a cell in the table; a single one is chosen there. */
  use(cell) {
    const { first, n, from, to, shndx } = cell.dataset;
    if (n === "1") {
      this.panel.go(Number(first));
      return;
    }
    const state = cell.parentNode.dataset.state.replace(CALL_PREFIX, "");
    const key = ["state", "status", "kind"].find((name) => this.panel.menus[name]);
    const known = key && this.table.by[key].data.values.includes(state);
    this.filter(BigInt(from), BigInt(to), Number(shndx), known ? { [key]: new Set([state]) } : {});
  }

  filterView() {
    const [left, right] = [this.address(this.from), this.address(this.to)];
    if (this.relocatable && left.section !== right.section) {
      this.panel.say("Two sections are in view: zoom in until it is one, or press a cell.", true);
      return;
    }
    this.filter(left.address, right.address + 1n, left.section.shndx, {});
  }

  filter(from, to, shndx, filters) {
    const numbered = this.relocatable && this.table.by.shndx;
    const range = numbered ? [from, to, shndx] : [from, to];
    const section = this.sections.find((each) => each.shndx === shndx);
    if (this.relocatable && !numbered && section) filters.section = new Set([section.name]);
    this.panel.state = { ...emptyState(), sort: this.panel.state.sort, range, filters };
    this.panel.update("push");
  }

  key(event) {
    if (event.altKey || event.metaKey || event.ctrlKey) return;
    const actions = { "+": () => this.zoom(2), "=": () => this.zoom(2), "-": () => this.zoom(0.5), 0: () => this.view(0, 100),
      Home: () => this.view(0, 100), ArrowUp: () => this.zoom(2), ArrowDown: () => this.zoom(0.5), Escape: () => this.view(0, 100),
      ArrowLeft: () => (event.shiftKey ? this.walk(-1) : this.pan(-0.125)),
      ArrowRight: () => (event.shiftKey ? this.walk(1) : this.pan(0.125)), Enter: () => this.enter() };
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  }

  walk(step) {
    const cells = [...this.svg.querySelectorAll("rect.cell")];
    if (!cells.length) return;
    this.cursor = Math.min(cells.length - 1, Math.max(0, this.cursor + step));
    cells.forEach((cell, i) => cell.classList.toggle("cursor", i === this.cursor));
    this.readout.setAttribute("aria-live", "polite");
    this.readout.textContent = cells[this.cursor].querySelector("title").textContent;
  }

  enter() {
    const cell = this.cursor < 0 ? null : this.svg.querySelectorAll("rect.cell")[this.cursor];
    if (cell) this.use(cell);
    else this.filterView();
  }
}

/** The first of these points that is not left of x. */
function lowerBound(points, x) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].x < x) low = middle + 1;
    else high = middle;
  }
  return low;
}
