// The best reply written better, in its own place on the screen. What is written stands in the fields that a page without scripts shows.
"use strict";
(() => {
  let open = null;  // place of the reply that is being edited

  const place = () => document.querySelector("form.verdict [name=edit_place]");
  const text = () => document.querySelector("form.verdict [name=edit_text]");
  const panes = () => [...document.querySelectorAll(".pane")];
  const area = (at) => panes()[at].querySelector(".rewrite");

  function begin() {
    open = null;
    if (!place()) return;
    panes().forEach((pane, at) => {
      const box = pane.querySelector(".rewrite");
      box.value = box.defaultValue;
      box.addEventListener("input", () => { keep(at); });
    });
    if (place().value) { open = Number(place().value); area(open).value = text().value; }
    show();
  }

  // The reply that the verdict puts first; none while there is no verdict, or where several are.
  function best() {
    const chosen = document.querySelector("form.verdict [name=choice]:checked"), ranks = [...document.querySelectorAll(".ranking select")];
    if (chosen && /^left/.test(chosen.value)) return 0;
    if (chosen && /^right/.test(chosen.value)) return 1;
    const firsts = ranks.map((select, at) => [select.value, at]).filter(([value]) => value === "1");
    return firsts.length === 1 ? firsts[0][1] : null;
  }

  function edit() {
    if (!place()) return;
    if (open !== null) { area(open).focus(); return; }
    const shown = panes().findIndex((pane) => pane.contains(document.activeElement));
    open = best() ?? (shown >= 0 ? shown : null);
    if (open === null) { say("Choose the best reply first: that one is edited."); return; }
    show();
    if (!area(open).getClientRects().length) document.querySelector(`[data-tab="${open}"]`).click();
    area(open).focus();
  }

  function keep(at) {
    const isChanged = area(at).value !== area(at).defaultValue;
    place().value = isChanged ? String(at) : "";
    text().value = isChanged ? area(at).value : "";
    Answers.changed();
  }

  function unedit() {
    if (open === null) return;
    area(open).value = area(open).defaultValue;
    keep(open);
    open = null;
    show();
    document.querySelector(".send").focus({ preventScroll: true });
    say("The edit is taken back.");
  }

  function show() {
    panes().forEach((pane, at) => {
      pane.querySelector(".rewriting").hidden = at !== open;
      pane.querySelector(".body").classList.toggle("is-rewritten", at === open);
    });
    document.querySelector("[data-act=edit]").setAttribute("aria-pressed", String(open !== null));
  }

  const say = (words) => { document.querySelector(".verdict .hint").textContent = words; };

  function check() {
    if (!place() || !place().value) return "";
    const first = best();
    return first !== null && first !== Number(place().value) ? "The edited reply is not the one that you put first. Take the edit back, or put that reply first." : "";
  }

  Answers.add({ begin, check, acts: { edit, unedit } });
})();
