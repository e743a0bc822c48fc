// Which key does what. Remapped keys are kept in this browser; no key has two meanings.
"use strict";
const Keys = (() => {
  const FIXED = {
    skip: ["s", "Skip"], undo: ["u", "Undo the last"], flag: ["f", "Flag"], rationale: ["n", "Write why"], guideline: ["g", "Guideline"],
    differences: ["d", "Differences"], together: ["l", "Scroll together"], prompt: ["c", "Conversation open or closed"], keys: ["?", "This list"],
    equal: ["=", "The next reply shares the place"], rate: ["r", "Rate what is not rated yet"], passages: ["h", "Mark passages"], good: ["+", "Passage is good"],
    bad: ["-", "Passage is bad"], edit: ["e", "Edit the best reply"],
  };
  const ASKED = ["equal", "rate", "passages", "good", "bad", "edit"];  // only where the guideline asks for it
  const LABELS = new Map(), STORE = "fairlead.keys", OFF = "fairlead.single-keys";
  const OWN_USE = ["Escape", "Tab", "Enter", " ", "Shift", "Control", "Alt", "AltGraph", "Meta", "Dead", "Process", "Unidentified", "Home", "End", "PageUp", "PageDown",
    "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"];  // they move, scroll, choose or write
  let own = {};
  try { own = JSON.parse(localStorage.getItem(STORE) || "{}"); } catch { own = {}; }

  // A label without its key, which a phone does not show.
  const words = (label) => [...label.querySelectorAll("span")].flatMap((span) => [...span.childNodes]).filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join(" ").trim();

  // The actions that are possible now: the verdicts of the guideline, then the rest.
  function table() {
    const given = new Map();
    document.querySelectorAll(".option input").forEach((input) => {
      LABELS.set(input.value, words(input.parentElement));
      given.set(input.value, input.dataset.key);
    });
    document.querySelectorAll("[data-put]").forEach((button) => {
      const name = `put${button.dataset.put}`;
      LABELS.set(name, `Reply ${button.dataset.name} gets the next place`);
      given.set(name, button.dataset.key);
    });
    for (const [action, [key]] of Object.entries(FIXED)) if (!ASKED.includes(action) || document.querySelector(`[data-act=${action}]`)) given.set(action, key);
    return settle(given);
  }

  // A key of the rater's own goes before one that is given: what another guideline gives it to gets the first key that is free.
  function settle(given) {
    const taken = new Map();
    for (const name of given.keys()) if (own[name] && ![...taken.values()].includes(own[name])) taken.set(name, own[name]);
    for (const [name, key] of given) if (!taken.has(name) && ![...taken.values()].includes(key)) taken.set(name, key);
    const free = [..."1234567890abcdefghijklmnopqrstuvwxyz"].filter((key) => ![...taken.values()].includes(key));
    return new Map([...given.keys()].map((name) => [name, taken.has(name) ? taken.get(name) : free.shift()]));
  }

  const areOn = () => localStorage.getItem(OFF) !== "off";
  const switchOn = (on) => localStorage.setItem(OFF, on ? "on" : "off");

  function action(key) {
    if (!areOn()) return null;
    const pressed = key.length === 1 ? key.toLowerCase() : key;
    for (const [name, bound] of table()) if (bound === pressed) return name;
    return null;
  }

  function change(name, key) {
    const bound = key.length === 1 ? key.toLowerCase() : key;
    if (OWN_USE.includes(bound)) return "This key has a use of its own.";
    const taken = [...table()].find(([other, used]) => used === bound && other !== name);
    if (taken) return `This key is in use: ${FIXED[taken[0]] ? FIXED[taken[0]][1] : LABELS.get(taken[0])}.`;
    own[name] = bound;
    localStorage.setItem(STORE, JSON.stringify(own));
    draw();
    return "";
  }

  function draw() {
    const found = table();
    document.querySelectorAll("kbd[data-of]").forEach((kbd) => { if (found.has(kbd.dataset.of)) kbd.textContent = found.get(kbd.dataset.of); });
    const body = document.getElementById("key-rows");
    if (!body) return;  // a page that uses keys and does not list them
    body.replaceChildren(...[...found].map(([name, key]) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      const button = document.createElement("button");
      head.scope = "row"; head.textContent = FIXED[name] ? FIXED[name][1] : LABELS.get(name);
      button.type = "button"; button.textContent = key; button.dataset.change = name;
      button.setAttribute("aria-label", `${head.textContent}: ${key}. Change`);
      cell.append(button); row.append(head, cell);
      return row;
    }));
  }

  function reset() { own = {}; localStorage.removeItem(STORE); draw(); }

  return { action, change, draw, reset, areOn, switchOn };
})();
