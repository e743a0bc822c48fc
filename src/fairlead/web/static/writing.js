// Writing and reviewing replies: keys, drafts that are saved while one writes, sending through a lost network. Without this file the forms
// of the page work by themselves.
"use strict";
(() => {
  const GUARD_MS = 400;  // what is pressed sooner was meant for the page before
  const stage = document.getElementById("stage"), alertBox = document.getElementById("alert"), chip = document.getElementById("saved");
  document.documentElement.classList.add("has-script");
  if (!stage) return;
  const csrf = document.querySelector("meta[name=csrf]").content, shownAt = performance.now();
  const area = document.getElementById("text"), form = area && area.closest("form"), name = `fairlead.text.${stage.dataset.who}.${stage.dataset.task}`;
  let hiddenMs = 0, hiddenSince = document.hidden ? shownAt : 0, timer = 0, isSent = false;

  addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = performance.now();
    else if (hiddenSince) { hiddenMs += performance.now() - hiddenSince; hiddenSince = 0; }
  });

  function say(text) { alertBox.textContent = text; alertBox.hidden = !text; }
  function tell(text, isWaiting) { if (chip.textContent !== text) chip.textContent = text; chip.classList.toggle("is-waiting", isWaiting); }

  // ---- what is being written

  const tookDraft = () => { const field = form.elements.took_draft; return field ? field.value : "false"; };

  async function save() {
    const text = area.value;
    try {
      const reply = await Outbox.send(form.dataset.draft, { text, took_draft: tookDraft() });
      if (!reply.ok) { const body = await reply.json(); tell(`Not saved: ${body.error.message}`, true); return; }
      if (area.value === text) { localStorage.removeItem(name); tell("All is saved", false); }
    } catch { tell("No network: kept in this browser", true); timer = setTimeout(save, 5000); }
  }

  function changed() {
    localStorage.setItem(name, area.value);
    clearTimeout(timer);
    timer = setTimeout(save, 700);
  }

  function take() {
    const draft = document.getElementById("draft-text").value;
    area.value = area.value.trim() ? `${area.value}\n\n${draft}` : draft;
    form.elements.took_draft.value = "true";
    changed();
    toEnd(area);
  }

  if (area) {
    const kept = localStorage.getItem(name);
    if (kept === area.value) localStorage.removeItem(name);  // a form without this script's help has saved it
    else if (kept !== null) { area.value = kept; changed(); if (area.closest("details")) area.closest("details").open = true; }
    area.addEventListener("input", changed);
  }

  // ---- sending

  async function send(target) {
    if (isSent || performance.now() - shownAt < GUARD_MS || !target.reportValidity()) return;
    isSent = true;
    clearTimeout(timer);
    say("");
    const fields = Object.fromEntries(new FormData(target));
    delete fields.csrf;
    if (!target.action.endsWith("/skip")) fields.active_ms = Math.round(performance.now() - shownAt - hiddenMs);
    stage.inert = true;
    Outbox.put(target.getAttribute("action"), fields);
  }

  function forward() { localStorage.removeItem(name); location.assign(stage.dataset.next); }

  Outbox.start(stage.dataset.who, csrf, ({ waiting, text, refused }) => {
    if (refused) { isSent = false; stage.inert = false; say(refused); return; }
    if (text) tell(waiting ? text : "All is saved", waiting > 0);
    if (waiting && isSent && text.includes(":")) say("No network: what you handed in is kept in this browser and sent when it is back.");
    if (!waiting && isSent) forward();
  }, ["reply", "replies"]);

  addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.id === "take") { event.preventDefault(); take(); return; }
    if (event.submitter && event.submitter.closest("#ask")) return;  // the form saves the text and comes back
    if (event.target.matches("[data-send]")) { event.preventDefault(); send(event.target); }
  });

  // ---- a draft that was asked for

  const ask = document.getElementById("ask");

  async function look() {
    try {
      const reply = await fetch(ask.dataset.look, { headers: { accept: "application/json" } });
      const now = reply.ok ? await reply.json() : { state: "waiting" };
      if (now.state !== "waiting") {
        ask.querySelector(".note").textContent = now.state === "ready" ? "A draft by a model is there." : now.failure;
        const button = document.getElementById("show-draft");
        if (now.state !== "ready") button.firstChild.data = "Go back to asking";
        button.hidden = false;
        return;
      }
    } catch { /* no network: it is there when the network is back */ }
    setTimeout(look, 1000);
  }
  if (ask && ask.dataset.state === "waiting") setTimeout(look, 1000);

  // ---- keys

  function open(id) {
    const details = document.getElementById(id);
    if (!details) return;
    details.open = true;
    const field = details.querySelector("textarea:not([hidden]), select, button");
    if (field) toEnd(field); else details.querySelector("summary").focus();
    details.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  function toEnd(field) {
    field.focus();
    if (field.matches("textarea")) field.setSelectionRange(field.value.length, field.value.length);
  }

  function flip(id) {
    const details = document.getElementById(id);
    if (!details) return;
    details.open = !details.open;
    details.querySelector("summary").focus();
  }

  const ACTS = {
    a: () => { const accept = document.getElementById("accept"); if (accept) send(accept); },
    b: () => open("return"), d: () => { const button = document.getElementById("ask-draft") || document.getElementById("show-draft"); if (button && !button.hidden) button.click(); else open("draft"); }, e: () => open("edit"), s: () => open("skip"), g: () => flip("guide"),
    n: () => { if (area && !area.closest("details")) toEnd(area); },
  };

  addEventListener("keydown", (event) => {
    const inText = event.target.matches("textarea, input, select");
    if (event.key === "Escape" && inText) { event.target.blur(); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const target = event.target.closest("form[data-send]") || (form && !form.closest("details") ? form : null);
      if (target) { event.preventDefault(); send(target); }
      return;
    }
    if (inText || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const act = ACTS[event.key.toLowerCase()];
    if (!act || performance.now() - shownAt < GUARD_MS) return;
    event.preventDefault();
    act();
  });

  if (area && !area.closest("details")) toEnd(area);
})();
