// Three or more replies put in order: a reply's number gives it the next place, again takes it out, `=` lets the next one share the place
// above, Alt+Up and Alt+Down move it. The places stand in the selects that a page without scripts shows.
"use strict";
(() => {
  let groups = [], shares = false;  // replies from the best down, equal ones together

  const area = () => document.querySelector(".ranking");
  const selects = () => [...area().querySelectorAll("select")];
  const isRanking = () => Boolean(area());
  const allBad = () => document.querySelector('.option input[value="both_bad"]');
  const named = (place) => area().querySelectorAll("[data-put]")[place].dataset.name;

  function begin() {
    groups = []; shares = false;
    if (!isRanking()) return;
    const by = new Map();
    selects().forEach((select, place) => { if (select.value) by.set(select.value, [...(by.get(select.value) || []), place]); });
    groups = [...by].sort(([a], [b]) => a - b).map(([, places]) => places);
    draw();
  }

  function put(place) {
    if (!isRanking() || place >= selects().length) return;
    const at = groups.findIndex((group) => group.includes(place));
    if (at >= 0) {
      groups[at] = groups[at].filter((other) => other !== place);
    } else if (shares && groups.length) groups[groups.length - 1].push(place);
    else groups.push([place]);
    groups = groups.filter((group) => group.length);
    shares = false;
    tell();
  }

  function move(place, by) {
    const at = groups.findIndex((group) => group.includes(place));
    if (at < 0) { put(place); return; }
    if (groups[at].length > 1) {  // out of a shared place, just above or below it
      groups[at] = groups[at].filter((other) => other !== place);
      groups.splice(by < 0 ? at : at + 1, 0, [place]);
    } else {
      const to = at + by;
      if (to < 0 || to >= groups.length) return;
      [groups[at], groups[to]] = [groups[to], groups[at]];
    }
    tell();
  }

  function equal() {
    if (!isRanking() || area().dataset.ties !== "allowed" || !groups.length) return;
    shares = !shares;
    draw();
  }

  function tell() {
    if (allBad()) allBad().checked = false;
    draw();
    Answers.changed();
  }

  function draw() {
    const number = new Map(groups.flatMap((group, i) => group.map((place) => [place, i + 1])));
    selects().forEach((select, place) => { select.value = number.has(place) ? String(number.get(place)) : ""; });
    area().querySelectorAll("[data-put]").forEach((button, place) => {
      button.setAttribute("aria-pressed", String(number.has(place)));
      button.querySelector(".got").textContent = number.has(place) ? `place ${number.get(place)}` : "no place yet";
    });
    const share = area().querySelector("[data-act=equal]");
    if (share) { share.setAttribute("aria-pressed", String(shares)); share.disabled = !groups.length; }
    const left = selects().length - number.size, order = groups.map((group) => group.map(named).join(" = ")).join(" > ");
    area().querySelector(".order").textContent = !number.size ? "Best first: choose a reply, or press its number." : left ? `${order}; ${left} without a place` : order;
  }

  function check() {
    if (!isRanking() || (allBad() && allBad().checked)) return "";
    const lacking = selects().map((select, place) => [select, place]).filter(([select]) => !select.value).map(([, place]) => named(place));
    return lacking.length ? `Give every reply a place: ${lacking.join(", ")} ${lacking.length > 1 ? "have" : "has"} none.` : "";
  }

  const acts = { equal };
  for (let place = 0; place < 9; place += 1) acts[`put${place}`] = () => put(place);

  addEventListener("click", (event) => {
    const button = event.target.closest("[data-put], [data-move]");
    if (!button || !isRanking()) return;
    if (button.dataset.put) put(Number(button.dataset.put));
    else move(Number(button.dataset.place), Number(button.dataset.move));
  });
  addEventListener("change", (event) => { if (event.target === allBad() && isRanking() && event.target.checked) { groups = []; draw(); } });
  addEventListener("keydown", (event) => {
    const held = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key], button = held && event.target.closest("[data-put]");
    if (!button) return;
    event.preventDefault();
    move(Number(button.dataset.put), held);
  });
  Answers.add({ begin, check, acts });
})();
