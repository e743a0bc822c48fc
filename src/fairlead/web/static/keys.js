// Which key does what. Remapped keys are kept in this browser; no key has two meanings.
"use strict";
const Keys = (() => {
  const FIXED = {
    skip: ["s", "Skip"], undo: ["u", "Undo the last"], flag: ["f", "Flag"], rationale: ["n", "Write why"], guideline: ["g", "Guideline"],
    differences: ["d", "Differences"], together: ["l", "Scroll together"], prompt: ["c", "Conversation open or closed"], keys: ["?", "This list"],
  };
  const LABELS = new Map(), STORE = "fairlead.keys";
  let own = {};
  try { own = JSON.parse(localStorage.getItem(STORE) || "{}"); } catch { own = {}; }

  // The actions that are possible now: the verdicts of the guideline, then the rest.
  function table() {
    const found = new Map();
    document.querySelectorAll(".option input").forEach((input) => {
      LABELS.set(input.value, input.parentElement.innerText.replace(/^\S+\s/, ""));
      found.set(input.value, own[input.value] || input.dataset.key);
    });
    for (const [action, [key]] of Object.entries(FIXED)) found.set(action, own[action] || key);
    return found;
  }

  function action(key) {
    const pressed = key.length === 1 ? key.toLowerCase() : key;
    for (const [name, bound] of table()) if (bound === pressed) return name;
    return null;
  }

  function change(name, key) {
    const bound = key.length === 1 ? key.toLowerCase() : key;
    if (["Escape", "Tab", "Enter", " ", "Shift", "Control", "Alt", "Meta"].includes(bound)) return "This key has a use of its own.";
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

  return { action, change, draw, reset };
})();
