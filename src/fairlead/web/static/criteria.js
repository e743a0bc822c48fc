// Ratings by criterion. R goes to the first rating that is missing; there digits rate and go on, arrows and Tab work as in any form.
"use strict";
(() => {
  const rows = () => [...document.querySelectorAll(".criteria .ratings")];
  const isRated = (row) => row.querySelector("input:checked");
  const lacking = () => rows().find((row) => !isRated(row));

  function rate() {
    const row = lacking() || rows()[0];
    if (row) (isRated(row) || row.querySelector("input")).focus();
  }

  const check = () => {
    const skips = document.querySelector("form.verdict [name=choice]:checked");
    const row = skips && skips.value === "skip" ? null : lacking();
    return row ? `Not rated yet: ${row.dataset.name}.` : "";
  };

  addEventListener("keydown", (event) => {
    const row = event.target.closest(".criteria .ratings");
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") { event.target.blur(); return; }
    const input = /^[0-9]$/.test(event.key) && row.querySelector(`input[value="${event.key === "0" ? "10" : event.key}"]`);
    if (!/^[0-9]$/.test(event.key)) return;
    event.preventDefault(); event.stopPropagation();  // a digit here never chooses a verdict
    if (!input) return;
    input.checked = true;
    Answers.changed();
    const next = lacking();
    if (next) next.querySelector("input").focus(); else { input.focus(); input.blur(); }
  }, true);
  Answers.add({ check, acts: { rate } });
})();
