// Replies one at a time on a phone: a button for each.
"use strict";
addEventListener("click", (event) => {
  const button = event.target.closest("[data-tab]");
  if (!button) return;
  const index = Number(button.dataset.tab);
  document.querySelectorAll(".pane").forEach((pane, i) => pane.classList.toggle("is-front", i === index));
  document.querySelectorAll("[data-tab]").forEach((tab, i) => tab.setAttribute("aria-pressed", String(i === index)));
});
