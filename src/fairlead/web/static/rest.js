// Reminds of a break after some minutes of work: a line above the item, shown when an item arrives, never in the way, gone at a press.
// Work is the time between things done; five minutes without any are a break of their own and the count begins anew.
"use strict";
const Rest = (() => {
  const DEFAULT_MIN = 50, PAUSE_MS = 120000, BREAK_MS = 300000, LATER_MIN = 10, WRITE_MS = 5000, SETTING = "fairlead.rest-minutes";
  let name = "", state = { worked: 0, seen: 0 }, written = 0;
  const box = () => document.getElementById("rest");

  const load = () => { try { return { worked: 0, seen: 0, ...JSON.parse(localStorage.getItem(name) || "{}") }; } catch { return { worked: 0, seen: 0 }; } };
  function store() { written = Date.now(); localStorage.setItem(name, JSON.stringify(state)); }

  function minutes() {
    const kept = localStorage.getItem(SETTING), number = Number(kept);
    return kept === null || !Number.isFinite(number) || number < 0 ? DEFAULT_MIN : Math.min(number, 600);
  }

  function did() {
    const now = Date.now();
    if (now - written >= WRITE_MS) { const kept = load(); if (kept.seen > state.seen) state = kept; }  // another tab works too
    const gap = now - state.seen;
    if (gap >= BREAK_MS || gap < 0) state.worked = 0;
    else if (gap < PAUSE_MS) state.worked += gap;
    state.seen = now;
    if (now - written >= WRITE_MS) store();
  }

  function arrived() {
    did();
    const limit = minutes(), worked = Math.floor(state.worked / 60000);
    if (!limit || worked < limit || !box().hidden) return;
    box().querySelector("span").textContent = `You have worked for ${worked} minutes. A short break is good for eyes and judgement; your votes are safe.`;
    box().hidden = false;
  }

  function close(left) { state.worked = left; store(); box().hidden = true; (document.querySelector("#stage .prompt[open] .turns") || document.querySelector("#stage .prompt summary, #stage a")).focus({ preventScroll: true }); }

  function start(who) {
    name = `fairlead.rest.${who}`; state = load();
    for (const kind of ["keydown", "pointerdown", "wheel"]) addEventListener(kind, did, { passive: true });
    addEventListener("pagehide", store);
    document.getElementById("rest-close").addEventListener("click", () => close(0));
    document.getElementById("rest-later").addEventListener("click", () => close(Math.max(0, minutes() - LATER_MIN) * 60000));
    const setting = document.getElementById("rest-minutes");
    setting.value = minutes();
    setting.addEventListener("change", () => {
      if (setting.value.trim() !== "" && setting.checkValidity()) localStorage.setItem(SETTING, String(Number(setting.value)));
      setting.value = minutes();
    });
  }

  return { start, arrived };
})();
