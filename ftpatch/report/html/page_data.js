"use strict";
// The payload as columns: each is decoded when it is first used, and answers for one row at a time.
// Addresses are 64 bits wide, more than a JavaScript number holds: they are kept as BigUint64Array.

const NUMBER_FORMAT = new Intl.NumberFormat("en-US");
const WORD = /\b0x((?:[0-9a-f]{2})+)\b/g; // code, which a cell shows without 0x

/** 44361 → "44,361" */
function grouped(n) {
  return NUMBER_FORMAT.format(n);
}

/** (1, "row") → "1 row"; (2, "row") → "2 rows" */
function counted(n, noun) {
  return `${grouped(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** Bytes for people, the sign kept: 26147924 → "24.94 MiB". */
function binarySize(bytes) {
  const size = Math.abs(bytes);
  const sign = bytes < 0 ? "−" : "";
  if (size < 1024) return `${sign}${size} B`;
  const [unit, name] = size < 1 << 20 ? [1 << 10, "KiB"] : size < 2 ** 30 ? [1 << 20, "MiB"] : [2 ** 30, "GiB"];
  return `${sign}${(size / unit).toFixed(2)} ${name}`;
}

/** "0x1f" → 31n; null where the text is no number of 64 bits. */
function parseHex(text) {
  if (!/^0x[0-9a-f]{1,16}$/i.test(text)) return null;
  return BigInt(text);
}

/** One column: `at(row)` is its value or null, `text(row)` what is shown, `compare` its order. */
class Column {
  constructor(spec, data, n) {
    Object.assign(this, { key: spec.key, title: spec.title, kind: spec.kind, n });
    this.hidden = Boolean(spec.hidden);
    this.filter = Boolean(spec.filter);
    this.data = data;
    this.orders = {};
  }

  get numeric() {
    return false;
  }

  text(row) {
    const value = this.at(row);
    if (value === null) return "";
    return this.kind === "words" ? value.replaceAll(WORD, "$1") : String(value);
  }

  /** What is shown where there is room. */
  full(row) {
    return this.text(row);
  }

  /** What goes into CSV and the clipboard. */
  plain(row) {
    return this.kind === "words" ? (this.at(row) ?? "") : this.text(row);
  }

  /** All rows by this column, those without a value last; equal ones stay in the order of the table. */
  order(descending) {
    const name = descending ? "down" : "up";
    if (!this.orders[name]) {
      const sign = descending ? -1 : 1;
      const rows = Uint32Array.from({ length: this.n }, (_, row) => row);
      this.orders[name] = rows.sort((a, b) => {
        const nulls = this.isNull(a) - this.isNull(b);
        return nulls || sign * this.compare(a, b) || a - b;
      });
    }
    return this.orders[name];
  }

  isNull(row) {
    return this.at(row) === null ? 1 : 0;
  }

  /** The length of the longest text, looked for no further than a page needs. */
  get longest() {
    let longest = 0;
    const step = Math.max(1, Math.floor(this.n / 4000));
    for (let row = 0; row < this.n; row += step) longest = Math.max(longest, this.text(row).length);
    return longest;
  }
}

class TextColumn extends Column {
  get lines() {
    return (this.decoded ??= this.data.text.split("\n"));
  }

  /** The lines in small letters, for a search that does not tell the two apart. */
  get lower() {
    return (this.lowered ??= this.lines.map((line) => line.toLowerCase()));
  }

  at(row) {
    return this.lines[row] || null;
  }

  compare(a, b) {
    const [left, right] = [this.lines[a], this.lines[b]];
    return left < right ? -1 : left > right ? 1 : 0;
  }
}

class EnumColumn extends Column {
  at(row) {
    const code = this.data.codes[row];
    return code === null || code === undefined ? null : this.data.values[code];
  }

  get lines() {
    return (this.spelled ??= this.data.codes.map((code) => (code === null ? "" : String(this.data.values[code]))));
  }

  get lower() {
    const values = this.data.values.map((value) => String(value).toLowerCase());
    return (this.lowered ??= this.data.codes.map((code) => (code === null ? "" : values[code])));
  }

  get ranks() {
    if (!this.ranked) {
      const { values } = this.data;
      this.ranked = new Uint32Array(values.length);
      const sorted = values.map((_, code) => code).sort((a, b) => (values[a] < values[b] ? -1 : 1));
      sorted.forEach((code, rank) => (this.ranked[code] = rank));
    }
    return this.ranked;
  }

  compare(a, b) {
    return this.ranks[this.data.codes[a]] - this.ranks[this.data.codes[b]];
  }
}

class IntColumn extends Column {
  get numeric() {
    return true;
  }

  /** Numbers as they are; beyond 2^53 the nearest one, and the exact one in `exact`. */
  get values() {
    if (!this.decoded) {
      this.decoded = new Float64Array(this.n).fill(NaN);
      this.exact = new Map();
      let value = 0;
      this.data.deltas.forEach((delta, row) => {
        if (delta === null) return;
        const sum = typeof value === "number" && typeof delta === "number" ? value + delta : NaN;
        value = Number.isSafeInteger(sum) ? sum : BigInt(value) + BigInt(delta);
        if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) value = Number(value);
        if (typeof value === "bigint") this.exact.set(row, value);
        this.decoded[row] = Number(value);
      });
    }
    return this.decoded;
  }

  at(row) {
    const value = this.values[row];
    return Number.isNaN(value) ? null : (this.exact.get(row) ?? value);
  }

  text(row) {
    const value = this.at(row);
    if (value === null) return "";
    return this.kind === "bytes" ? binarySize(Number(value)) : String(value);
  }

  full(row) {
    const text = this.text(row);
    return this.kind === "bytes" && text && !text.endsWith(" B") ? `${this.plain(row)} bytes, ${text}` : text;
  }

  plain(row) {
    return String(this.at(row) ?? "");
  }

  compare(a, b) {
    const [left, right] = [this.at(a), this.at(b)];
    return left < right ? -1 : left > right ? 1 : 0;
  }
}

class HexColumn extends Column {
  get numeric() {
    return true;
  }

  get values() {
    if (!this.decoded) {
      this.decoded = new BigUint64Array(this.n);
      this.nulls = new Uint8Array(this.n);
      let value = BigInt(this.data.base);
      this.data.deltas.forEach((delta, row) => {
        if (delta === null) {
          this.nulls[row] = 1;
          return;
        }
        value += BigInt(delta);
        this.decoded[row] = value; // modulo 2^64, as the array takes it
      });
    }
    return this.decoded;
  }

  at(row) {
    const value = this.values[row];
    return this.nulls[row] ? null : value;
  }

  text(row) {
    const value = this.at(row);
    return value === null ? "" : `0x${value.toString(16)}`;
  }

  get lower() {
    return (this.texts ??= Array.from({ length: this.n }, (_, row) => this.text(row)));
  }

  compare(a, b) {
    const { values } = this;
    return values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0;
  }
}

/** Whether two columns say the same of each row. */
function sameValues(left, right) {
  for (let i = 0; i < left.n; i++) if (left.at(i) !== right.at(i)) return false;
  return true;
}

/** The class that reads a column is told by what it has. */
function column(spec, data, n) {
  const Type = "text" in data ? TextColumn : "values" in data ? EnumColumn : "base" in data ? HexColumn : IntColumn;
  return new Type(spec, data, n);
}

/** One table of the payload: its columns in order, and each by its key. */
class TableData {
  constructor(table, file) {
    Object.assign(this, { name: table.name, title: table.title, n: table.n, truncated: table.truncated || 0, file });
    this.columns = table.columns.map((spec) => column(spec, table.data[spec.key], table.n));
    this.by = Object.fromEntries(this.columns.map((each) => [each.key, each]));
    const { status, state } = this.by;
    // where a run changed nothing, the state of each site is its status: shown once
    if (status && state && sameValues(status, state)) Object.assign(state, { hidden: true, filter: false });
    // in a file that is not linked, addresses are offsets
    const { address, offset } = this.by;
    if (address && offset && sameValues(address, offset)) address.hidden = true;
    // what a search by name goes by, what names a row in front
    const ofKeys = ["keys", "set_calls"].includes(table.name) ? ["key"] : [];
    const keys = new Set([...ofKeys, "function", "aliases", "key", "name", "module"]);
    this.names = [...keys].map((key) => this.by[key]).filter(Boolean);
  }

  get visible() {
    return this.columns.filter((each) => !each.hidden);
  }

  /** What `0x…` and the map go by. */
  get address() {
    return this.by.address;
  }

  /** Whether a slot is one row: in a tree each module counts its own. */
  get bySlot() {
    return Boolean(this.by.row) && !this.by.module;
  }

  /** The slot of a row, where that tells it apart from all others; else null. */
  slot(index) {
    return this.bySlot ? this.by.row.at(index) : null;
  }

  /** The link that finds a row again: by its slot where it has one, else by its place in this table. */
  reference(index) {
    const slot = this.name === "sites" ? this.slot(index) : null;
    return slot === null ? { at: String(index) } : { row: String(slot) };
  }

  /** The index of the first row with this slot number, or −1. */
  ofSlot(slot) {
    if (!this.bySlot) return -1;
    this.slots ??= new Map(Array.from({ length: this.n }, (_, i) => [this.by.row.at(i), i]).reverse());
    return this.slots.get(slot) ?? -1;
  }

  /** The rows of exactly this name, aliases and keys of static calls too. */
  named(name) {
    const rows = [];
    for (let i = 0; i < this.n; i++) {
      const has = (each) => each.at(i) === name || (each.key === "aliases" && each.at(i)?.split(" ").includes(name));
      if (this.names.some(has)) rows.push(i);
    }
    return rows;
  }

  /** A few names that are like one that does not exist. */
  namesLike(name) {
    const wanted = name.toLowerCase();
    const [names] = this.names;
    const near = new Map();
    for (let i = 0; names && i < this.n && wanted; i++) {
      const text = names.at(i);
      if (text && !near.has(text)) {
        const distance = nearness(wanted, text.toLowerCase());
        if (distance < 3) near.set(text, distance);
      }
    }
    const byDistance = [...near].sort((a, b) => a[1] - b[1] || a[0].length - b[0].length || (a[0] < b[0] ? -1 : 1));
    return byDistance.slice(0, 5).map((pair) => pair[0]);
  }
}

/** How many letters are added, lost, changed or swapped, up to 3; a name that begins with the other counts as 2. */
function nearness(wanted, name) {
  const begins = wanted.length > 3 && name.startsWith(wanted) ? 2 : 3;
  if (Math.abs(wanted.length - name.length) > 2 || wanted.length > 80) return begins;
  let [before, above] = [[], Array.from({ length: name.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= wanted.length; i++) {
    const line = [i];
    for (let j = 1; j <= name.length; j++) {
      const same = wanted[i - 1] === name[j - 1];
      line[j] = Math.min(above[j] + 1, line[j - 1] + 1, above[j - 1] + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && wanted[i - 1] === name[j - 2] && wanted[i - 2] === name[j - 1];
      if (swapped) line[j] = Math.min(line[j], before[j - 2] + 1);
    }
    if (Math.min(...line) > 2) return begins;
    [before, above] = [above, line];
  }
  return Math.min(begins, above[name.length]);
}

/** The payload of this page: a list of views, each with its tables. */
function readPayload() {
  const payload = JSON.parse(document.getElementById("ftpatch-data").textContent);
  return payload.views.map((view) => ({
    file: view.file,
    kind: view.kind,
    tables: view.tables.map((table) => new TableData(table, view.file)),
  }));
}
