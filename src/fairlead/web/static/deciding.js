// A decision by the keys that raters have: a side or the places, ratings, the reason. Without this file the form works by itself.
"use strict";
(() => {
  const GUARD_MS = 400;  // what is pressed sooner was meant for the page before
  const shownAt = performance.now(), alertBox = document.getElementById("alert");
  document.documentElement.classList.add("has-script");

  const reason = () => Answers.form().querySelector("[name=reason]");
  const acts = { ...Answers.acts(), rationale: () => reason().focus() };

  function choose(value) {
    const input = document.querySelector(`.option input[value="${CSS.escape(value)}"]`);
    if (!input) return;
    input.checked = true;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    input.focus({ preventScroll: true });
  }

  addEventListener("submit", (event) => {
    if (event.target !== Answers.form()) return;
    const missing = Answers.missing();
    alertBox.textContent = missing;
    alertBox.hidden = !missing;
    if (missing) { event.preventDefault(); alertBox.scrollIntoView({ block: "center", behavior: "instant" }); }
  });

  addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (button && acts[button.dataset.act]) acts[button.dataset.act]();
  });

  addEventListener("keydown", (event) => {
    const inText = event.target.matches("textarea, input:not([type=radio]), select");
    if (event.key === "Escape" && inText) { event.target.blur(); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); Answers.form().requestSubmit(); return; }
    if (inText || event.ctrlKey || event.metaKey || event.altKey || event.repeat || performance.now() - shownAt < GUARD_MS) return;
    const act = Keys.action(event.key);
    if (!act) return;
    event.preventDefault();
    if (acts[act]) acts[act](); else choose(act);
  });

  Answers.begin(null, () => {});
  Keys.draw();
})();
