// Passages of a reply marked as good or bad. H shows the replies as they were written; there the arrows go word by word, Shift+arrows
// select more, + and - mark what is selected; a pointer selects as usual. Offsets count characters (code points) of the stored text.
"use strict";
(() => {
  const MAX_QUOTE = 60;
  let spans = [], isOn = false, pristine = [];

  const field = () => document.querySelector("form.verdict [name=spans]");
  const panes = () => [...document.querySelectorAll(".pane")];
  const written = () => panes().map((pane) => pane.querySelector(".written"));
  const length = (text) => [...text].length;

  function begin() {
    spans = []; isOn = false; pristine = [];
    if (!field()) return;
    pristine = written().map((pre) => pre.cloneNode(true));
    try { spans = JSON.parse(field().value || "[]"); } catch { spans = []; }
    show(); draw();
  }

  function toggle() {
    if (!field()) return;
    isOn = !isOn;
    show();
    if (isOn) { const front = panes().find((pane) => pane.getClientRects().length); front.querySelector(".written").focus(); }
  }

  function show() {
    panes().forEach((pane) => {
      pane.querySelector(".written").hidden = !isOn;
      pane.querySelector(".body").classList.toggle("is-marking", isOn);
    });
    document.querySelector("[data-act=passages]").setAttribute("aria-pressed", String(isOn));
    document.querySelector(".marking").hidden = !isOn && !spans.length;
    document.querySelectorAll(".marking [data-act]").forEach((button) => { button.hidden = !isOn; });
  }

  // Characters before a point inside a text. What stands for a hidden character counts as that one.
  function offset(pre, node, at) {
    const range = document.createRange();
    range.selectNodeContents(pre);
    range.setEnd(node, at);
    return raw(range.cloneContents());
  }
  const raw = (part) => leaves(part).reduce((total, leaf) => total + size(leaf), 0);

  function selected() {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    const place = written().findIndex((pre) => pre.contains(range.startContainer) && pre.contains(range.endContainer));
    if (place < 0) return null;
    const pre = written()[place];
    return { place, start: offset(pre, range.startContainer, range.startOffset), end: offset(pre, range.endContainer, range.endOffset), quote: range.toString() };
  }

  function mark(label) {
    if (!isOn || !field()) return;
    const found = selected();
    if (!found || found.end <= found.start) { say("Select a passage of one reply first."); return; }
    spans = spans.filter((span) => span.place !== found.place || span.end <= found.start || span.start >= found.end);
    spans.push({ place: found.place, start: found.start, end: found.end, label, note: "" });
    spans.sort((a, b) => a.place - b.place || a.start - b.start);
    tell(`Marked as ${label}: ${short(found.quote)}`);
    getSelection().collapseToEnd();
  }

  function tell(text) { draw(); say(text); Answers.changed(); }
  function say(text) { document.querySelector(".marking .said").textContent = text; }
  const short = (text) => { const one = text.replace(/\s+/g, " ").trim(); return one.length > MAX_QUOTE ? `${one.slice(0, MAX_QUOTE)}...` : one; };

  // Each text again from what the server sent, with its passages in <mark>; only text nodes are split, nothing is parsed.
  function draw() {
    field().value = spans.length ? JSON.stringify(spans) : "";
    written().forEach((pre, place) => {
      pre.replaceChildren(...pristine[place].cloneNode(true).childNodes);
      spans.filter((span) => span.place === place).forEach((span) => paint(pre, span));
    });
    document.querySelector(".passages").replaceChildren(...spans.map(row));
  }

  // Text nodes, and elements that stand for one hidden character, in order.
  function leaves(part) {
    return [...part.childNodes].flatMap((node) => node.nodeType === Node.TEXT_NODE || node.classList.contains("hidden-character") ? [node] : leaves(node));
  }
  const size = (leaf) => leaf.nodeType === Node.TEXT_NODE ? length(leaf.data) : 1;

  function paint(pre, { start, end, label }) {
    let at = 0;
    for (const leaf of leaves(pre)) {
      const before = at, from = Math.max(start, at);
      at += size(leaf);
      const to = Math.min(end, at);
      if (from >= to) continue;
      const whole = leaf.nodeType === Node.TEXT_NODE ? cut(leaf, from - before, to - before) : leaf, box = document.createElement("mark");
      box.className = `is-${label}`;
      whole.replaceWith(box);
      box.append(whole);
    }
  }

  // The part of a text node between two characters, as a node of its own.
  function cut(node, from, to) {
    const units = (count, text) => [...text].slice(0, count).join("").length;
    const last = units(to, node.data);
    if (last < node.data.length) node.splitText(last);
    const first = units(from, node.data);
    return first ? node.splitText(first) : node;
  }

  function row(span) {
    const item = document.createElement("li"), quote = document.createElement("q"), note = document.createElement("input"), remove = document.createElement("button");
    const label = document.createElement("b"), side = panes()[span.place].dataset.name;
    label.textContent = `${side}, ${span.label}`;
    label.className = `is-${span.label}`;
    quote.textContent = short(text(span));
    note.value = span.note; note.maxLength = 2000; note.placeholder = "Note, if you like";
    note.setAttribute("aria-label", `Note on a passage of ${side}: ${quote.textContent}`);
    note.addEventListener("input", () => { span.note = note.value; field().value = JSON.stringify(spans); Answers.changed(); });
    note.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });  // which would send the verdict
    remove.type = "button"; remove.textContent = "Remove";
    remove.addEventListener("click", () => { spans = spans.filter((other) => other !== span); tell("Removed."); show(); });
    item.append(label, quote, note, remove);
    return item;
  }
  const text = (span) => leaves(pristine[span.place]).flatMap((leaf) => leaf.nodeType === Node.TEXT_NODE ? [...leaf.data] : [leaf.textContent]).slice(span.start, span.end).join("");

  const MOVES = { ArrowLeft: ["backward", "word"], ArrowRight: ["forward", "word"], ArrowUp: ["backward", "line"], ArrowDown: ["forward", "line"] };
  addEventListener("keydown", (event) => {
    const pre = event.target.closest && event.target.closest(".written");
    if (!pre || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") { event.preventDefault(); toggle(); return; }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const selection = getSelection();
    if (!selection.rangeCount || !pre.contains(selection.anchorNode)) { selection.collapse(pre, 0); selection.modify("extend", "forward", "word"); return; }
    if (event.shiftKey) selection.modify("extend", ...move);
    else {
      if (!selection.isCollapsed) { if (move[0] === "forward") selection.collapseToEnd(); else selection.collapseToStart(); }
      if (move[1] === "line" || move[0] === "backward") selection.modify("move", ...move);
      selection.modify("extend", "forward", "word");
    }
    if (!pre.contains(selection.focusNode)) selection.collapse(pre, 0);
  });
  Answers.add({ begin, acts: { passages: toggle, good: () => mark("good"), bad: () => mark("bad") } });
})();
