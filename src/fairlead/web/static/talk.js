// Live conversation: keys, messages and choices that survive a lost network, and the wait for two replies. Without this file the forms of the
// page work by themselves, and the page that waits loads itself again.
"use strict";
(() => {
  const GUARD_MS = 400, POLL_MS = 700;  // what is pressed sooner was meant for the page before
  const talk = document.getElementById("talk"), alertBox = document.getElementById("alert"), chip = document.getElementById("saved");
  document.documentElement.classList.add("has-script");
  const csrf = document.querySelector("meta[name=csrf]").content, shownAt = performance.now(), data = talk.dataset;
  const area = document.getElementById("text"), draft = `fairlead.talk.${data.who}.${data.chat}`, verdict = document.querySelector("form.verdict");
  let isSent = false, hiddenMs = 0, hiddenSince = document.hidden ? shownAt : 0;

  addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = performance.now();
    else if (hiddenSince) { hiddenMs += performance.now() - hiddenSince; hiddenSince = 0; }
  });

  function say(text) { alertBox.textContent = text; alertBox.hidden = !text; }

  function forward() {
    if (area) localStorage.removeItem(draft);
    location.assign(`/p/${data.project}/talk`);
  }

  function send(form) {
    if (isSent || performance.now() - shownAt < GUARD_MS || !form.reportValidity()) return;
    const missing = form === verdict ? Answers.missing() : "";
    if (missing) { say(missing); return; }
    isSent = true;
    say("");
    const fields = Object.fromEntries(new FormData(form));
    delete fields.csrf;
    if (form.getAttribute("action").endsWith("/verdict")) fields.active_ms = Math.round(performance.now() - shownAt - hiddenMs);
    talk.inert = true;
    Outbox.put(form.getAttribute("action"), fields);
  }

  Outbox.start(data.who, csrf, ({ waiting, text, refused }) => {
    if (refused) { isSent = false; talk.inert = false; say(refused); return; }
    if (text) { const words = waiting ? text : "All is saved"; if (chip.textContent !== words) chip.textContent = words; chip.classList.toggle("is-waiting", waiting > 0); }
    if (waiting && isSent && text.includes(":")) say("No network: what you sent is kept in this browser and sent when it is back.");
    if (!waiting && isSent) forward();
  }, ["message", "messages"]);

  addEventListener("submit", (event) => { if (event.target.matches("[data-send]")) { event.preventDefault(); send(event.target); } });

  if (area) {
    area.value = localStorage.getItem(draft) || area.value;
    area.addEventListener("input", () => localStorage.setItem(draft, area.value));
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  async function poll() {
    try {
      const reply = await fetch(`/p/${data.project}/talk/state?${new URLSearchParams({ chat: data.chat })}`, { headers: { accept: "application/json" } });
      const now = reply.ok ? await reply.json() : null;
      const line = document.getElementById("waiting");
      if (now && now.words && line.textContent !== now.words) line.textContent = now.words;
      if (now && (now.state !== data.state || String(now.number) !== data.number)) { location.reload(); return; }
      say("");
    } catch { say("No network: the replies come when it is back."); }
    setTimeout(poll, POLL_MS);
  }
  if (data.state === "waiting") setTimeout(poll, POLL_MS);
  if (verdict) { Answers.begin(null, () => {}); Keys.draw(); }
  if (verdict) verdict.querySelector("input[type=radio]").closest("fieldset").scrollIntoView({ block: "nearest", behavior: "instant" });

  addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (button && Answers.acts()[button.dataset.act]) Answers.acts()[button.dataset.act]();
  });

  addEventListener("keydown", (event) => {
    const inText = event.target.matches("textarea, input:not([type=radio]), select");
    if (event.key === "Escape" && inText) { event.target.blur(); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const form = event.target.closest("form[data-send]") || verdict || document.getElementById("say");
      if (form) { event.preventDefault(); send(form); }
      return;
    }
    if (inText || event.ctrlKey || event.metaKey || event.altKey || event.repeat || performance.now() - shownAt < GUARD_MS) return;
    if (event.key === "Enter" && verdict && !event.target.closest("button, a, summary")) { event.preventDefault(); send(verdict); return; }
    const act = verdict && Keys.action(event.key), option = act && verdict.querySelector(`.option input[value="${CSS.escape(act)}"]`);
    if (option) { event.preventDefault(); option.checked = true; option.focus({ preventScroll: true }); return; }
    if (act && Answers.acts()[act]) { event.preventDefault(); Answers.acts()[act](); return; }
    const open = { g: "guide", s: "skip" }[event.key.toLowerCase()], details = open && document.getElementById(open);
    if (details) { event.preventDefault(); details.open = !details.open; (details.open && details.querySelector("select") || details.querySelector("summary")).focus(); return; }
    if (event.key.toLowerCase() === "n") { const field = (verdict || talk).querySelector("textarea"); if (field) { event.preventDefault(); field.focus(); } }
  });
})();
