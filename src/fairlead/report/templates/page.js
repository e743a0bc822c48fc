"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const show = (element) => { element.hidden = false; };

  // Theme: the system decides until a person does.
  const root = document.documentElement;
  const toggle = document.querySelector("[data-theme-toggle]");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { toggle.textContent = isDark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`); };
  const keep = (value) => { try { localStorage.setItem("fairlead-theme", value); } catch { /* private window or file: not kept */ } };
  try { const kept = localStorage.getItem("fairlead-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* the same */ }
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; keep(root.dataset.theme); label(); });
  label();
  show(toggle);

  // Buttons of what the page shows; once more for each part that a live page puts in its place.
  const prepare = (part) => {
    tables(part);
    copies(part);
    samplesIn(part);
  };

  // Tables: a click on a column name sorts by the exact value, empty cells last.
  const cellValue = (row, index) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity;
    return a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b, undefined, { numeric: true });
  };
  const sortTable = (table, index, header) => {
    const isDown = header.getAttribute("aria-sort") === "ascending";
    const sign = isDown ? -1 : 1;
    all("th[aria-sort]", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    const order = (a, b) => { const c = compare(cellValue(a, index), cellValue(b, index)); return Number.isFinite(c) ? sign * c : Math.sign(c); };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  };
  const tables = (part) => all("table[data-sortable]", part).forEach((table) => {
    if (table.tBodies[0].rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((header, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sortTable(table, index, header));
      header.append(button);
    });
  });

  // Copying. A text cell that a spreadsheet would run as a formula gets an apostrophe.
  const copyByHand = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  };
  const copy = async (text, button) => {
    let isDone = true;
    try { await navigator.clipboard.writeText(text); } catch { isDone = copyByHand(text); }
    const before = button.textContent;
    button.textContent = isDone ? "Copied" : "Not allowed here";
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  const csvCell = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const safe = !("number" in cell.dataset) && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (table) => [...table.rows].map((row) => [...row.cells].map(csvCell).join(",")).join("\r\n") + "\r\n";
  const copies = (part) => {
    all("[data-copy]", part).forEach((button) => {
      const table = button.closest("figure").querySelector("table");
      if (!table) return;
      button.addEventListener("click", () => copy(csv(table), button));
      show(button);
    });
    all("[data-copy-text]", part).forEach((button) => {
      button.addEventListener("click", () => copy(button.parentElement.querySelector("code").textContent, button));
      show(button);
    });
  };

  // Samples: worst, best or as sampled; those without scores stay last.
  const change = (article) => article.dataset.change === "" ? NaN : Number(article.dataset.change);
  const orders = {
    worst: (a, b) => change(a) - change(b),
    best: (a, b) => change(b) - change(a),
    given: (a, b) => a.dataset.order - b.dataset.order,
  };
  const samplesIn = (part) => all("[data-sorts]", part).forEach((group) => {
    const samples = group.closest(".samples");
    const articles = all("article", samples);
    if (articles.length < 2) return;
    group.addEventListener("click", (event) => {
      const button = event.target.closest("[data-sort]");
      if (!button) return;
      const scored = articles.filter((a) => button.dataset.sort === "given" || !isNaN(change(a)));
      const sorted = [...scored.sort(orders[button.dataset.sort]), ...articles.filter((a) => !scored.includes(a))];
      samples.querySelector("[data-first]").append(...sorted.slice(0, 2));
      samples.querySelector("[data-more]")?.append(...sorted.slice(2));
      all("[data-sort]", group).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    });
    show(group);
  });

  prepare(document);
  document.addEventListener("fairlead-news", (event) => prepare(event.target));

  // Print: open folded samples and the reading help; the numbers of charts would fill pages.
  addEventListener("beforeprint", () => all(".samples details, .foot details").forEach((fold) => { fold.open = true; }));
})();
