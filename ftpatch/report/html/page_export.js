"use strict";
// What leaves the page: the clipboard, CSV, paper.

/** One cell of CSV; text that a spreadsheet would run as a formula gets an apostrophe in front. */
function csvCell(each, index) {
  const text = each.plain(index);
  if (each.numeric) return text;
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]|^'/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** To the clipboard, by the old way where a page from a file may not use the new one. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus({ preventScroll: true });
    if (!copied) throw new Error("the browser does not let this page copy");
  }
}

Object.assign(Panel.prototype, {
  async copy(text, what) {
    try {
      await toClipboard(text);
      this.say(`Copied ${what}.`);
    } catch (error) {
      this.say(`Not copied: ${error.message}`, true);
    }
  },

  copyRow() {
    const lines = this.table.columns.map((each) => [each.title, each.plain(this.state.at)]);
    const text = lines.filter((pair) => pair[1]).map((pair) => pair.join("\t")).join("\n");
    return this.copy(`${text}\n`, this.nameOf(this.state.at));
  },

  /** What may name a row: its function, its slot. */
  selectorOf(index) {
    const name = this.table.names[0].at(index);
    const slot = this.table.slot(index);
    return [...(name !== null && PLAIN_NAME.test(name) ? [name] : []), ...(slot === null ? [] : [`row:${slot}`])];
  },

  /** What is shown, a selector a line; a name only where all that have it are shown, else the slot. */
  selectors() {
    const { table, rows } = this;
    const names = table.names[0];
    const count = (counts, index) => counts.set(names.at(index), (counts.get(names.at(index)) ?? 0) + 1);
    const shown = rows.reduce(count, new Map());
    const everywhere = new Map();
    for (let i = 0; i < table.n; i++) count(everywhere, i);
    const lines = rows.map((index) => {
      const whole = shown.get(names.at(index)) === everywhere.get(names.at(index));
      return this.selectorOf(index).find((text) => whole || text.startsWith("row:"));
    });
    return [...new Set(lines.filter(Boolean))];
  },

  copyNames() {
    const lines = this.selectors();
    if (!lines.length) {
      this.say("None of these rows has a name or slot to copy.", true);
      return undefined;
    }
    const of = this.table.file.replaceAll(/\s+/g, " ");
    const head = this.table.name === "sites" ? `# ${counted(lines.length, "selector")} of ${of}, for --func @file\n` : "";
    const chosen = new Set(lines);
    const left = this.rows.filter((index) => this.selectorOf(index).every((text) => !chosen.has(text))).length;
    const without = left ? `; ${counted(left, "row")} cannot be named` : "";
    return this.copy(`${head}${lines.join("\n")}\n`, `${counted(lines.length, this.table.name === "sites" ? "selector" : "name")}${without}`);
  },

  csv() {
    const { columns } = this.table;
    const lines = [columns.map((each) => each.key).join(",")];
    for (const index of this.rows) lines.push(columns.map((each) => csvCell(each, index)).join(","));
    return `${lines.join("\r\n")}\r\n`;
  },

  save() {
    const url = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv;charset=utf-8" }));
    const name = this.table.file.split("/").pop().replaceAll(/[^A-Za-z0-9_.-]+/g, "_").slice(0, 60);
    make("a", { href: url, download: `${name || "ftpatch"}-${this.table.name}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    this.say(`Saved ${counted(this.rows.length, "row")}.`);
  },

  /** The rows that go on paper, as a table that a printer can break. */
  print() {
    const { visible } = this.table;
    const rows = this.rows.slice(0, PRINTED);
    const head = make("tr", {}, ...visible.map((each) => make("th", { scope: "col" }, each.title)));
    const body = rows.map((index) => make("tr", {}, ...visible.map((each) => make("td", {}, each.text(index)))));
    const left = this.rows.length - rows.length;
    const first = left ? `The first ${counted(rows.length, "row")} of ${grouped(this.rows.length)}` : counted(rows.length, "row");
    const searched = this.clear.hidden ? "" : `, after search and filters${this.state.q ? `: ${this.state.q}` : ""}`;
    this.paper.replaceChildren(make("p", {}, `${first}${searched}.`),
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  },
});
