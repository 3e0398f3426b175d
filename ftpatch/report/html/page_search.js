"use strict";
// What is typed into a search field, as a test of rows; and the rows that pass it and the filters, sorted.

const LONGEST_MATCHED = 2000; // characters of one text that a regular expression is tried on
const REGEX_MILLISECONDS = 1500; // after which a regular expression is given up

/** Letters that mean something in a regular expression, made to mean themselves. */
function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

/** A glob as the command line takes it: `*`, `?`, `[a-c]`, `[!x]`, for the whole name. */
function globPattern(glob) {
  const body = glob.replace(/\[(!?)([^\]]+)\]|[*?]|[^*?[]+|\[/g, (part, not, set) => {
    if (part === "*") return ".*";
    if (part === "?") return ".";
    return set ? `[${not ? "^" : ""}${set.replace(/[\\\]^[]/g, "\\$&")}]` : escaped(part);
  });
  return new RegExp(`^(?:${body})$`, "su");
}

/** A typed text → {test(row), note} or {error}. An empty text passes everything. */
function parseQuery(text, table) {
  const query = text.trim();
  if (!query) return { test: null };
  if (query.startsWith("!") && query.length > 1) {
    const inner = parseQuery(query.slice(1), table);
    return inner.test ? { ...inner, note: "", test: (row) => !inner.test(row) } : inner;
  }
  const form = [regexQuery, hexQuery, placeQuery, wholeNameQuery, globQuery].find((each) => each.takes(query));
  return (form ?? wordsQuery)(query, table);
}

function anyName(table, test) {
  const columns = table.names.length ? table.names : textColumns(table);
  return (row) => columns.some((each) => everyAlias(each, row).some(test));
}

function everyAlias(each, row) {
  const text = each.text(row);
  return each.key === "aliases" ? text.split(" ").filter(Boolean) : [text];
}

function textColumns(table) {
  return table.columns.filter((each) => ["text", "code"].includes(each.kind) || each.key === "module");
}

function regexQuery(query, table) {
  const [, body, flags] = query.match(/^\/((?:\\.|[^\\/])*)(?:\/(i?))?$/s) ?? [];
  if (body === undefined) return { error: `${query}: what stands behind the last / is no flag; only i is` };
  let pattern;
  try {
    pattern = new RegExp(body, `u${flags ?? ""}`);
  } catch (error) {
    return { error: `${error.message}. Regular expressions are those of JavaScript` };
  }
  if (!body) return { test: null };
  const columns = [...new Set([...table.names, ...textColumns(table)])];
  const deadline = { at: null };
  const test = (row) => {
    deadline.at ??= performance.now() + REGEX_MILLISECONDS;
    if (row % 64 === 0 && performance.now() > deadline.at) throw new RangeError("this expression takes too long");
    return columns.some((each) => pattern.test(each.text(row).slice(0, LONGEST_MATCHED)));
  };
  return { test };
}
regexQuery.takes = (query) => query.startsWith("/");

/** `0x…`: an address or offset, whole or as it begins. */
function hexQuery(query, table) {
  const digits = query.slice(2).toLowerCase();
  const columns = table.columns.filter((each) => each instanceof HexColumn);
  const value = digits ? BigInt(query) : null;
  const typed = `0x${digits}`;
  const test = (row) => columns.some((each) => each.lower[row].startsWith(typed) || each.at(row) === value);
  return { test, nearest: value !== null && table.address ? () => nearestBefore(table, value) : null };
}
hexQuery.takes = (query) => /^0x[0-9a-f]{0,16}$/i.test(query);

/** Of an address that is no site: what the site in front of it is. */
function nearestBefore(table, value) {
  let best = -1;
  for (let row = 0; row < table.n; row++) {
    const address = table.address.at(row);
    if (address === null || address > value) continue;
    if (best < 0 || address > table.address.at(best)) best = row;
  }
  return best < 0 ? null : { row: best, behind: value - table.address.at(best) };
}

/** `row:N` and `.section+0xOFF`, as the command line takes them. */
function placeQuery(query, table) {
  const [, slot] = query.match(/^row:(\d{1,15})$/) ?? [];
  if (slot !== undefined) return { test: (row) => table.by.row?.at(row) === Number(slot) };
  const cut = query.lastIndexOf("+");
  const [section, offset] = [query.slice(0, cut), BigInt(query.slice(cut + 1))];
  const place = table.by.offset ?? table.address;
  return { test: (row) => table.by.section?.at(row) === section && place?.at(row) === offset };
}
placeQuery.takes = (query) => /^row:\d{1,15}$|^\.[^\s]*\+0x[0-9a-f]{1,16}$/i.test(query);

function wholeNameQuery(query, table) {
  const name = query.slice(1, -1);
  return { test: anyName(table, (text) => text === name) };
}
wholeNameQuery.takes = (query) => /^".+"$/s.test(query);

function globQuery(query, table) {
  const pattern = globPattern(query);
  return { test: anyName(table, (text) => pattern.test(text)) };
}
globQuery.takes = (query) => /[*?]/.test(query);

/** Words that all have to be in one of the texts; capitals only count where some are typed. */
function wordsQuery(query, table) {
  const field = /[A-Z]/.test(query) ? "lines" : "lower";
  const texts = textColumns(table).map((each) => each[field]);
  for (const each of table.columns) {
    if (each.kind === "words" && /^[0-9a-f]{8}/i.test(query)) texts.push(each.lower);
  }
  const words = query.split(/\s+/);
  const slot = /^\d+$/.test(query) && table.by.row ? Number(query) : null;
  const test = (row) =>
    (slot !== null && table.by.row.at(row) === slot) ||
    words.every((word) => texts.some((lines) => (lines[row] ?? "").includes(word)));
  return { test };
}

/** The state of one table as tests of rows; `except` leaves out one column's filter, for its counts. */
function filterTests(table, state, query) {
  const tests = [];
  for (const each of table.columns) {
    const wanted = state.filters[each.key];
    if (wanted?.size) tests.push({ key: each.key, test: (row) => wanted.has(each.text(row)) });
  }
  if (query.test) tests.push({ key: null, test: query.test });
  if (state.range && table.address) {
    const [from, to, shndx] = state.range;
    tests.push({ key: null, test: (row) => {
      const value = table.address.at(row);
      const inside = value !== null && value >= from && value < to;
      return inside && (shndx === undefined || table.by.shndx?.at(row) === shndx);
    } });
  }
  if (state.bytes && table.by.distance) {
    const [low, high] = state.bytes;
    tests.push({ key: null, test: (row) => {
      const value = table.by.distance.at(row);
      return value !== null && value >= low && value < high;
    } });
  }
  return tests;
}

/** The rows that pass, in the order wanted, and how many there would be for each value of each filter. */
function select(table, state, query) {
  const tests = filterTests(table, state, query);
  const filters = table.columns.filter((each) => each.filter && each instanceof EnumColumn);
  const counts = Object.fromEntries(filters.map((each) => [each.key, new Uint32Array(each.data.values.length)]));
  const passing = new Uint8Array(table.n);
  for (let row = 0; row < table.n; row++) {
    const failed = tests.filter((each) => !each.test(row));
    if (!failed.length) passing[row] = 1;
    if (failed.length > 1) continue;
    for (const each of filters) {
      const code = each.data.codes[row];
      if (code !== null && (!failed.length || failed[0].key === each.key)) counts[each.key][code] += 1;
    }
  }
  const key = state.sort?.replace(/^-/, "");
  const order = key && table.by[key] ? table.by[key].order(state.sort.startsWith("-")) : null;
  const rows = [];
  for (let i = 0; i < table.n; i++) {
    const row = order ? order[i] : i;
    if (passing[row]) rows.push(row);
  }
  return { rows, counts };
}
