// What is wrong with a page: names of controls, headings, identifiers, anchors, width. A list of texts.
() => {
  const faults = [];
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter((h) => h.checkVisibility()).map((h) => +h.localName[1]);
  levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) faults.push(`heading ${i} is of level ${level}`) });
  if (levels.filter((level) => level === 1).length !== 1) faults.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.forEach((id, i) => { if (ids.indexOf(id) !== i) faults.push(`id ${id} twice`) });
  for (const each of document.querySelectorAll("button, a[href], input, select, summary, [tabindex='0']")) {
    const name = each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.[0]?.textContent.trim();
    if (!name) faults.push(`no name: ${each.outerHTML.slice(0, 80)}`);
  }
  for (const each of document.querySelectorAll("[aria-describedby], label[for]")) {
    const id = each.getAttribute("aria-describedby") ?? each.getAttribute("for");
    if (!document.getElementById(id)) faults.push(`no element ${id}`);
  }
  for (const each of document.querySelectorAll("a[href^='#']")) {
    const id = each.getAttribute("href").slice(1);
    if (!id.includes("=") && !document.getElementById(id)) faults.push(`no anchor ${id}`);
  }
  for (const each of document.querySelectorAll("[style]")) if (!each.style.cssText) faults.push("empty style");
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`${document.documentElement.scrollWidth} wide`);
  return faults;
}
