"use strict";
// Sorting: a button in each head, and a list of the same for narrow screens, where heads are not seen.
const keyOf = (row, at, numeric) => {
  const cell = row.cells[at];
  return numeric ? Number(cell.dataset.value) : cell.textContent.trim().toLowerCase();
};
const sortBy = (table, at, descending) => {
  const head = table.tHead.rows[0].cells[at], body = table.tBodies[0], numeric = head.dataset.sort === "number";
  const rows = [...body.rows].map((row, place) => ({ row, place, key: keyOf(row, at, numeric) }));
  const compare = (a, b) => (numeric ? a.key - b.key || 0 : a.key.localeCompare(b.key, undefined, { numeric: true }));
  rows.sort((a, b) => (descending ? compare(b, a) : compare(a, b)) || a.place - b.place);
  body.append(...rows.map((one) => one.row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
};
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const label = document.createElement("label"), select = document.createElement("select");
  label.className = `sorter ${table.className}`;
  label.append("Sort by", select);
  heads.forEach((head, at) => {
    const words = head.textContent, numeric = head.dataset.sort === "number", button = document.createElement("button");
    button.type = "button";
    if (!words) return;
    button.append(words);
    head.replaceChildren(button);
    select.append(new Option(words, at));
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sortBy(table, at, now ? now === "ascending" : numeric && at > 0);  // the largest first, but for the order itself
    });
  });
  select.addEventListener("change", () => {
    const head = heads[select.value];
    sortBy(table, Number(select.value), head.dataset.sort === "number" && select.value !== "0");
  });
  table.parentElement.before(label);
}

// What is under the pointer: the figures of the row that a part of a picture stands for.
const tip = document.getElementById("tip");
const marked = new Set();
const unmark = () => {
  for (const one of marked) one.classList.remove("same");
  marked.clear();
  tip.hidden = true;
};
const show = (link, x, y) => {
  const target = link.getAttribute("href"), row = document.getElementById(target.slice(1));
  unmark();
  if (!row) return;
  for (const one of [row, ...document.querySelectorAll(`svg a[href="${target}"]`)]) {
    one.classList.add("same");
    marked.add(one);
  }
  const [number, name, ...others] = row.cells;
  const figures = others.filter((cell) => !cell.classList.contains("why"));
  tip.textContent = [
    `${number.textContent} ${name.textContent}`,
    ...figures.map((cell) => `${cell.dataset.label}: ${cell.textContent.trim()}`),
  ].join("\n");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 14) : y + 18}px`;
};
for (const picture of document.querySelectorAll("figure svg")) {
  picture.addEventListener("pointermove", (event) => {
    const link = event.target.closest("a");
    if (link) show(link, event.clientX, event.clientY);
    else unmark();
  });
  picture.addEventListener("pointerleave", unmark);
}
addEventListener("scroll", unmark, { passive: true });
