(() => {
  // News every two seconds in place of what is shown; what a person opened, sorted or scrolled stays so.
  const EVERY_MS = 2000;
  let revision = "";
  const all = (selector, part) => [...part.querySelectorAll(selector)];
  const note = document.querySelector("[data-off]");
  const named = (table) => table.closest(".scroll")?.getAttribute("aria-label");
  const sorted = (table) => {
    const header = table.querySelector("th[aria-sort]");
    return header && { column: header.cellIndex, isDown: header.getAttribute("aria-sort") === "descending" };
  };
  const replace = (text) => {
    const main = document.querySelector("main");
    const next = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const open = all("details", main).map((item) => item.open);
    const sorts = new Map(all("table", main).map((table) => [named(table), sorted(table)]));
    const boxes = new Map(all(".scroll", main).map((box) => [box.getAttribute("aria-label"), [box.scrollLeft, box.scrollTop]]));
    all("details", next).forEach((item, i) => { item.open = open[i] ?? item.open; });
    main.replaceChildren(...next.childNodes);
    main.dispatchEvent(new Event("fairlead-news", { bubbles: true }));
    all("table", main).forEach((table) => {
      const sort = sorts.get(named(table));
      const button = sort && table.tHead.rows[0].cells[sort.column]?.querySelector("button");
      button?.click();
      if (sort?.isDown) button?.click();
    });
    all(".scroll", main).forEach((box) => { [box.scrollLeft, box.scrollTop] = boxes.get(box.getAttribute("aria-label")) ?? [0, 0]; });
    document.title = main.querySelector("h1").textContent;
  };
  const poll = async () => {
    try {
      const answer = await fetch("/live.json", { cache: "no-store" });
      const news = await answer.json();
      if (revision && news.revision !== revision) replace(news.main);
      revision = news.revision;
      note.hidden = true;
    } catch {
      if (note.hidden) note.textContent = `No answer since ${new Date().toLocaleTimeString()}: this page stands still. Start it again with: fairlead report --follow`;
      note.hidden = false;
    }
    setTimeout(poll, EVERY_MS);
  };
  poll();
})();
