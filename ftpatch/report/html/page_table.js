"use strict";
// A table of which only the rows in view exist as elements: a grid in the sense of WAI-ARIA, moved by scrolling and keys.

const OVERSCAN = 8; // rows drawn above and below what is seen
const TALLEST = 8_000_000; // pixels that every browser lets an element be high; more rows share them
const WIDEST = { text: 44, code: 48, words: 36, hex: 18, bytes: 24, int: 12, enum: 26 }; // characters of a column

const PADDING = 22; // pixels of a cell that hold no text
const LINK_WIDTH = 34; // pixels of the last column
const GROWING = ["message", "function", "key", "name", "module"]; // the first of them that there is takes what is left
const LEAST = { function: 24, key: 28, message: 40, module: 40, name: 40 }; // characters that names keep
const MARKED = ["status", "state", "action", "severity"]; // columns whose values have a colour

/** An element with attributes, properties of its dataset and children; text is never markup. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** The beginning of a text that is too long for its place. */
function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** The index of the greatest of these widths; −1 where all are 0. */
function widest(widths) {
  const most = Math.max(...widths);
  return most > 0 ? widths.indexOf(most) : -1;
}

class Grid {
  /** `choose(index, by)` is told of the row that is chosen, `sort(key)` of a heading that is pressed. */
  constructor(table, label, { choose, sort, link }) {
    Object.assign(this, { table, choose, link, rows: [], pool: [], active: -1, activeColumn: 0 });
    this.columns = table.visible;
    this.id = `grid-${(Grid.count = (Grid.count ?? 0) + 1)}`;
    this.head = make("div", { role: "row", class: "grid-head", "aria-rowindex": "1" });
    this.head.append(...this.columns.map((each, i) => this.heading(each, i, sort)));
    this.body = make("div", { role: "rowgroup", class: "grid-body" });
    this.element = make(
      "div",
      { role: "grid", class: "grid", tabindex: "0", "aria-label": label, "aria-colcount": this.columns.length + 1 },
      make("div", { role: "rowgroup", class: "grid-top" }, this.head),
      this.body,
    );
    this.head.append(make("span", { role: "columnheader", class: "cell link", "aria-colindex": this.columns.length + 1 },
      make("span", { class: "unseen" }, "Link")));
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.resizes = new ResizeObserver(() => this.measure());
  }

  /** Draw from now on; before, the height of a row is not known. */
  start() {
    this.measure();
    // a table of few rows needs no more room than these, a scroll bar and a line of air
    const all = this.head.offsetHeight + (this.table.n + 1.5) * this.rowHeight;
    if (all < this.element.offsetHeight) this.element.style.height = `${Math.ceil(all)}px`;
    this.resizes.observe(this.element);
  }

  heading(each, i, sort) {
    const arrow = make("span", { class: "arrow", "aria-hidden": "true" });
    const button = make("button", { type: "button" }, each.title, arrow);
    button.addEventListener("click", () => sort(each.key));
    const numeric = each.numeric ? " number" : "";
    return make("span", { role: "columnheader", class: `cell${numeric}`, "aria-colindex": i + 1, "aria-sort": "none",
      "data-key": each.key }, button);
  }

  /** The width of each column in pixels: what its texts need, less where the table would not fit, more where it would. */
  widths(room) {
    const probe = this.body.appendChild(make("span", { class: "probe" }, "0".repeat(100)));
    const character = probe.getBoundingClientRect().width / 100;
    probe.remove();
    const wanted = this.columns.map((each) =>
      Math.ceil(Math.min(WIDEST[each.kind] ?? 30, Math.max(each.longest, each.title.length + 2)) * character + PADDING + (MARKED.includes(each.key) ? 20 : 0)));
    const least = this.columns.map((each, i) => {
      const keeps = each.numeric || MARKED.includes(each.key) || each.key === "section";
      return keeps ? wanted[i] : Math.min(wanted[i], Math.ceil(Math.max(each.title.length + 2, LEAST[each.key] ?? 16) * character + PADDING));
    });
    const key = GROWING.find((name) => this.columns.some((each) => each.key === name));
    const grows = Math.max(0, this.columns.findIndex((each) => each.key === key));
    let spare = room - LINK_WIDTH - wanted.reduce((sum, width) => sum + width, 0);
    if (spare > 0) wanted[grows] += spare;
    while (spare < 0) {
      const i = widest(wanted.map((width, k) => (width > least[k] ? width : 0)));
      if (i < 0) break;
      const less = Math.min(-spare, 8, wanted[i] - least[i]);
      wanted[i] -= less;
      spare += less;
    }
    return [...wanted, LINK_WIDTH].map((width) => `${width}px`).join(" ");
  }

  measure() {
    const row = parseFloat(getComputedStyle(this.element).getPropertyValue("--row-pixels"));
    const size = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.rowHeight = Math.round((row || 1.75) * size);
    this.element.style.setProperty("--row", `${this.rowHeight}px`);
    if (this.element.clientWidth !== this.fitted) {
      this.fitted = this.element.clientWidth;
      this.element.style.setProperty("--columns", this.widths(this.fitted));
    }
    this.body.style.height = `${this.bodyHeight}px`;
    this.draw();
  }

  get bodyHeight() {
    return Math.min(TALLEST, this.rows.length * this.rowHeight);
  }

  get viewHeight() {
    return Math.max(this.rowHeight, this.element.clientHeight - this.head.offsetHeight);
  }

  /** Pixels from the first row to the first one in view, were they all there. */
  get top() {
    const whole = this.rows.length * this.rowHeight;
    if (whole <= TALLEST) return this.element.scrollTop;
    const share = this.element.scrollTop / Math.max(1, TALLEST - this.viewHeight);
    return share * (whole - this.viewHeight);
  }

  set top(pixels) {
    const whole = this.rows.length * this.rowHeight;
    const share = pixels / Math.max(1, whole - this.viewHeight);
    this.element.scrollTop = whole <= TALLEST ? pixels : share * (TALLEST - this.viewHeight);
  }

  /** Show these rows of the table; the chosen one stays chosen where it is among them. */
  show(rows, sort) {
    const chosen = this.chosen;
    this.rows = rows;
    this.active = chosen === null ? -1 : rows.indexOf(chosen);
    this.element.setAttribute("aria-rowcount", rows.length + 1);
    for (const heading of this.head.querySelectorAll("[data-key]")) {
      const own = sort?.replace(/^-/, "") === heading.dataset.key;
      heading.setAttribute("aria-sort", own ? (sort.startsWith("-") ? "descending" : "ascending") : "none");
    }
    if (this.rowHeight) {
      this.body.style.height = `${this.bodyHeight}px`;
      if (this.active < 0) this.element.scrollTop = 0;
      else this.reveal(this.active);
      this.draw();
    }
  }

  /** The index in the table of the chosen row, or null. */
  get chosen() {
    return this.rows[this.active] ?? null;
  }

  draw() {
    if (!this.rowHeight) return;
    const { top } = this;
    const first = Math.max(0, Math.floor(top / this.rowHeight) - OVERSCAN);
    const last = Math.min(this.rows.length, Math.ceil((top + this.viewHeight) / this.rowHeight) + OVERSCAN);
    const shift = this.element.scrollTop - top;
    while (this.pool.length < last - first) this.pool.push(this.body.appendChild(this.emptyRow()));
    this.pool.forEach((row, k) => {
      const position = first + k;
      row.hidden = position >= last;
      if (!row.hidden) this.fill(row, position, position * this.rowHeight + shift);
    });
    const cell = this.active >= first && this.active < last ? this.pool[this.active - first] : null;
    if (cell) this.element.setAttribute("aria-activedescendant", cell.children[this.activeColumn].id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  emptyRow() {
    const id = `${this.id}-${this.pool.length}`;
    const row = make("div", { role: "row", class: "grid-row" });
    this.columns.forEach((each, i) => {
      const kind = each.numeric ? " number" : ["words", "code"].includes(each.kind) ? " code" : "";
      row.append(make("span", { role: "gridcell", class: `cell${kind}`, id: `${id}-${i}`, "aria-colindex": i + 1 }));
    });
    const link = make("a", { class: "row-link", tabindex: "-1" }, "#");
    row.append(make("span", { role: "gridcell", class: "cell link", id: `${id}-link`,
      "aria-colindex": this.columns.length + 1 }, link));
    return row;
  }

  fill(row, position, pixels) {
    const index = this.rows[position];
    row.style.transform = `translateY(${pixels}px)`;
    const active = position === this.active;
    row.setAttribute("aria-selected", String(active));
    row.classList.toggle("odd", position % 2 === 1);
    this.columns.forEach((each, i) => {
      const cell = row.children[i];
      cell.classList.toggle("active", active && i === this.activeColumn);
    });
    row.lastChild.classList.toggle("active", active && this.activeColumn === this.columns.length);
    if (row.index === index) return;
    row.index = index;
    row.setAttribute("aria-rowindex", position + 2);
    this.columns.forEach((each, i) => {
      const cell = row.children[i];
      const text = each.text(index);
      cell.title = text.length > 12 ? clipped(each.full(index), 1000) : "";
      if (MARKED.includes(each.key) && /^[a-z_-]+$/.test(text)) {
        cell.replaceChildren(make("span", { class: `mark state-${text}`, "aria-hidden": "true" }), text);
      } else {
        cell.textContent = clipped(text, 300);
      }
    });
    const { href, name } = this.link(index);
    const link = row.lastChild.firstChild;
    link.href = href;
    link.setAttribute("aria-label", `Link to ${name}`);
    link.title = `Link to ${name}`;
  }

  clicked(event) {
    const row = event.target.closest(".grid-row");
    if (!row || event.target.closest("a")) return;
    const cell = event.target.closest(".cell");
    this.activeColumn = cell ? [...row.children].indexOf(cell) : 0;
    this.activate(this.rows.indexOf(row.index));
  }

  /** Make the row at this position the chosen one. */
  activate(position, told = true) {
    this.active = position;
    this.reveal(position);
    this.draw();
    if (told) this.choose(this.chosen);
  }

  /** Scroll no more than it takes to have the row in view; to the middle where it is far. */
  reveal(position) {
    const [from, to] = [position * this.rowHeight, (position + 1) * this.rowHeight];
    const { top, viewHeight } = this;
    if (from < top - 2 * viewHeight || to > top + 3 * viewHeight) this.top = Math.max(0, from - viewHeight / 2);
    else if (from < top) this.top = from;
    else if (to > top + viewHeight) this.top = to - viewHeight;
  }

  key(event) {
    if (event.target.closest("input, select, textarea")) return;
    if (event.altKey || event.metaKey || (event.ctrlKey && !["Home", "End"].includes(event.key))) return;
    const page = Math.max(1, Math.floor(this.viewHeight / this.rowHeight) - 1);
    const last = this.rows.length - 1;
    const rows = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page,
      PageUp: this.active - page, Home: 0, End: last };
    const columns = { ArrowRight: this.activeColumn + 1, ArrowLeft: this.activeColumn - 1 };
    if (event.key in rows && last >= 0) {
      const wanted = this.active < 0 && event.key !== "End" ? 0 : rows[event.key];
      this.activate(Math.min(last, Math.max(0, wanted)));
    } else if (event.key in columns && this.active >= 0) {
      this.activeColumn = Math.min(this.columns.length, Math.max(0, columns[event.key]));
      this.draw();
      const cell = document.getElementById(this.element.getAttribute("aria-activedescendant"));
      cell?.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else if (event.key === "Enter" && event.target === this.element && this.active >= 0) {
      if (this.activeColumn === this.columns.length) location.hash = this.link(this.chosen).href.slice(1);
      else this.choose(this.chosen, "enter");
    } else {
      return;
    }
    if (event.target !== this.element) this.element.focus({ preventScroll: true });
    event.preventDefault();
  }
}
