// The rating screen: keys, the next item kept ready, drafts, undo. Without this file the forms of the page work by themselves.
"use strict";
(() => {
  const GUARD_MS = 400;  // what is pressed sooner was meant for the item before
  const stage = document.getElementById("stage"), alertBox = document.getElementById("alert");
  const csrf = document.querySelector("meta[name=csrf]").content, project = stage.dataset.project;
  const policy = window.trustedTypes ? trustedTypes.createPolicy("fairlead", { createHTML: (text) => text }) : { createHTML: (text) => text };
  const $ = (selector) => stage.querySelector(selector);
  let item = null, ready = null, last = null, shownAt = 0, hiddenMs = 0, hiddenSince = 0, firstKey = null, draftTimer = 0, together = true, marked = false, refusal = "";
  const doneBefore = Number($(".item").dataset.done);
  let sent = 0;

  document.documentElement.classList.add("has-script");
  addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = performance.now();
    else if (hiddenSince) { hiddenMs += performance.now() - hiddenSince; hiddenSince = 0; }
  });

  const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const tooSoon = () => performance.now() - shownAt < GUARD_MS;
  const atOnce = () => document.getElementById("at-once").checked;

  function say(text) { alertBox.textContent = text; alertBox.hidden = !text; }

  // ---- what is on the screen

  function begin(values = null) {
    item = $(".item");
    shownAt = performance.now(); hiddenMs = 0; hiddenSince = document.hidden ? shownAt : 0; firstKey = null;
    say(refusal);  // of the vote before, when its answer came sooner than this item
    Answers.begin(values || kept(), draft);
    const form = $("form.verdict");
    if (form) { form.addEventListener("input", draft); form.addEventListener("change", draft); }
    stage.querySelectorAll(".prose pre").forEach(addCopy);
    linkScroll();
    showMarks();
    Keys.draw();
    progress();
    Rest.arrived();
    if (item.dataset.assignment) prepare();
  }

  function progress() {
    const done = doneBefore + sent, left = Number(item.dataset.left), median = Number(item.dataset.median);
    const minutes = median && left ? `, about ${Math.max(1, Math.round(left * median / 60))} min` : "";
    document.getElementById("progress").textContent = left ? `${done} done, up to ${left} left${minutes}` : `${done} done`;
  }

  function put(html, values = null) { stage.innerHTML = policy.createHTML(html); begin(values); item.scrollIntoView({ block: "start", behavior: "instant" }); focusFirst(); }

  // The focus goes to where reading begins, whatever held it in the item before.
  function focusFirst() {
    const first = [".prompt[open] .turns", ".prompt summary", "h1"].map($).find(Boolean);
    if (first.matches("h1")) first.tabIndex = -1;
    first.focus({ preventScroll: true });
  }


  async function fragment(query) {
    const reply = await fetch(`/p/${project}/next?${query}`, { headers: { accept: "text/html" } });
    if (reply.status === 401) { location.assign("/login"); throw new Error("logged out"); }
    if (!reply.ok) throw new Error(`answer ${reply.status}`);
    return reply.text();
  }

  const without = () => [...Outbox.waiting(), item && item.dataset.assignment].filter(Boolean).join(",");

  function prepare() {
    const request = fragment(new URLSearchParams({ without: without() })).catch(() => null);
    ready = request;
  }

  async function forward() {
    const html = ready ? await ready : null;
    ready = null;
    if (html !== null && !html.includes("data-nothing")) { put(html); return; }
    stage.inert = true;
    await Outbox.flush();  // what is still on its way may open what comes next
    for (;;) {
      try { const found = await fragment(new URLSearchParams({ without: without() })); stage.inert = false; put(found); break; }
      catch { say("No network: the next item comes when it is back. Your votes are kept in this browser."); await new Promise((go) => setTimeout(go, 2000)); }
    }
  }

  // ---- verdicts

  function choose(value) {
    const input = $(`.option input[value="${value}"]`);
    if (!input) return;
    input.checked = true;
    const needsWhy = item.dataset.rationale === "required" && !$("textarea[name=rationale]").value.trim();
    if (needsWhy) $("textarea[name=rationale]").focus();
    else if (atOnce() && !Answers.missing()) send();
    else input.focus({ preventScroll: true });
    draft();
  }

  function send(skipReason = "") {
    const form = $("form.verdict");
    if (!form || tooSoon()) return;
    if (!skipReason && !form.reportValidity()) return;
    const area = $("textarea[name=rationale]");
    if (!skipReason && item.dataset.rationale === "required" && !area.value.trim()) { area.focus(); say("This guideline asks for a reason: write one or two sentences."); return; }
    const missing = skipReason ? "" : Answers.missing();
    if (missing) { say(missing); return; }
    const fields = Object.fromEntries(new FormData(form)), answers = Answers.fields();
    delete fields.csrf;
    Object.assign(fields, { key: newKey(), assignment: item.dataset.assignment, active_ms: Math.round(performance.now() - shownAt - hiddenMs) });
    if (firstKey !== null) fields.first_key_ms = Math.round(firstKey);
    if (skipReason) Object.assign(fields, { choice: "skip", skip_reason: skipReason });
    last = { html: stage.innerHTML, key: fields.key, assignment: fields.assignment, answers };
    clearTimeout(draftTimer);
    localStorage.removeItem(draftName());
    refusal = "";
    Outbox.put(form.getAttribute("action"), fields);
    sent += 1;
    forward();
  }

  async function undo() {
    if (tooSoon()) return;
    if (last && Outbox.take(last.key)) { sent -= 1; restore(); return; }
    await Outbox.flush();
    try {
      const reply = await Outbox.send(`/p/${project}/undo`, { key: newKey() });
      const body = await reply.json();
      if (!reply.ok) { say(body.error.message); return; }
      sent -= 1;
      if (last && last.assignment === body.assignment) restore();
      else put(await fragment(new URLSearchParams({ a: body.assignment })));
    } catch { say("No network: nothing was taken back. Try again when it is back."); }
  }

  function restore() {
    const { html, answers } = last;
    last = null;
    put(html, answers);
  }

  // ---- drafts

  const draftName = () => `fairlead.draft.${stage.dataset.who}.${item.dataset.assignment}`;

  function kept() {
    try { return JSON.parse(localStorage.getItem(draftName()) || "null"); } catch { return null; }
  }

  function draft() {
    const assignment = item.dataset.assignment, answers = Answers.fields();
    localStorage.setItem(draftName(), JSON.stringify(answers));
    clearTimeout(draftTimer);
    draftTimer = setTimeout(() => Outbox.send(`/a/${assignment}/draft`, answers).catch(() => {}), 700);
  }

  // ---- reading

  function linkScroll() {
    const bodies = [...stage.querySelectorAll(".pane .body")];
    let leader = null, timer = 0;
    bodies.forEach((body) => body.addEventListener("scroll", () => {
      if (!together || (leader && leader !== body)) return;
      leader = body;
      clearTimeout(timer);
      timer = setTimeout(() => { leader = null; }, 120);
      const room = body.scrollHeight - body.clientHeight, share = room > 0 ? body.scrollTop / room : 0;
      bodies.filter((other) => other !== body).forEach((other) => { other.scrollTop = share * (other.scrollHeight - other.clientHeight); });
    }, { passive: true }));
  }

  function showMarks() {
    stage.querySelectorAll(".marked").forEach((pre) => { pre.hidden = !marked; pre.previousElementSibling.hidden = marked; });
    pressed("differences", marked);
    pressed("together", together);
  }

  const pressed = (name, is) => { const button = $(`[data-act=${name}]`); if (button) button.setAttribute("aria-pressed", String(is)); };

  function addCopy(pre) {
    if (pre.parentElement.matches(".code")) pre.parentElement.replaceWith(pre);  // of an item that undo brought back
    const frame = document.createElement("div"), button = document.createElement("button");
    button.type = "button"; button.className = "copy"; button.textContent = "Copy";
    button.addEventListener("click", async () => { await navigator.clipboard.writeText(pre.querySelector("code").textContent); button.textContent = "Copied"; });
    frame.className = "code"; pre.tabIndex = 0;  // long lines scroll
    pre.replaceWith(frame);
    frame.append(button, pre);
    if (pre.scrollWidth > pre.clientWidth) { pre.tabIndex = 0; pre.setAttribute("role", "region"); pre.setAttribute("aria-label", "Code"); }
  }

  // ---- what was pressed

  const ACTS = {
    undo, skip: () => open("skip"), flag: () => open("flag"), guideline: () => open("guideline"), keys: () => open("keys"),
    rationale: () => { const area = $("textarea[name=rationale]"); if (area) area.focus(); },
    differences: () => { if ($(".marked")) { marked = !marked; showMarks(); } },
    together: () => { together = !together; showMarks(); },
    ...Answers.acts(),
    prompt: () => { const details = $(".prompt"); if (details) details.open = !details.open; },
  };

  function open(id) {
    if (["skip", "flag"].includes(id) && !item.dataset.assignment) return;
    if (id === "flag") document.getElementById("flag-note").value = item.dataset.flag;
    document.getElementById(id).showModal();
  }

  document.getElementById("skip").addEventListener("close", (event) => { const reason = event.target.returnValue; event.target.returnValue = ""; if (reason) send(reason); });
  document.getElementById("flag").addEventListener("close", (event) => {
    if (event.target.returnValue !== "send") return;
    event.target.returnValue = "";
    const note = document.getElementById("flag-note").value.trim();
    item.dataset.flag = note;
    $("[data-open=flag]").setAttribute("aria-pressed", String(Boolean(note)));
    Outbox.put(`/a/${item.dataset.assignment}/flag`, { key: newKey(), note });
  });
  document.getElementById("keys-reset").addEventListener("click", Keys.reset);
  document.getElementById("at-once").checked = localStorage.getItem("fairlead.at-once") === "yes";
  document.getElementById("at-once").addEventListener("change", (event) => localStorage.setItem("fairlead.at-once", event.target.checked ? "yes" : "no"));

  addEventListener("click", (event) => {  // a pointer too soon was meant for the item before
    if (event.detail > 0 && tooSoon() && event.target.closest(".ranking, .criteria")) { event.preventDefault(); event.stopImmediatePropagation(); }
  }, true);

  addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.open) open(button.dataset.open);
    else if (button && button.dataset.act) ACTS[button.dataset.act]();
    else if (button && button.dataset.change) remap(button);
    const option = event.target.closest(".option");
    if (option && event.detail > 0 && event.target.matches("input")) {  // a pointer, not the arrow keys
      if (tooSoon()) { event.preventDefault(); return; }
      if (firstKey === null) firstKey = performance.now() - shownAt;
      if (atOnce()) setTimeout(() => choose(event.target.value));
    }
  });

  function remap(button) {
    button.textContent = "press a key";
    button.addEventListener("keydown", (event) => {
      event.preventDefault(); event.stopPropagation();
      const name = button.dataset.change, wrong = event.key === "Escape" ? "" : Keys.change(name, event.key);
      Keys.draw();
      const again = document.querySelector(`[data-change="${name}"]`);
      again.focus();
      if (wrong) again.textContent = wrong;
    }, { once: true });
  }

  addEventListener("submit", (event) => { if (event.target.matches("form.verdict")) { event.preventDefault(); send(); } });

  addEventListener("keydown", (event) => {
    const inDialog = document.querySelector("dialog[open]"), inText = event.target.matches("textarea, input:not([type=radio])");
    if (event.key === "Escape" && event.target.matches("textarea") && !inDialog) { $(".send").focus({ preventScroll: true }); return; }
    if (inDialog) {
      const button = inDialog.id === "skip" && inDialog.querySelector(`[data-key="${event.key}"]`);
      if (button && !inText) { event.preventDefault(); button.click(); }
      return;
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); return; }
    if (inText || event.ctrlKey && event.key.toLowerCase() !== "z" || event.metaKey || event.altKey || event.repeat) return;
    if (event.ctrlKey) { event.preventDefault(); undo(); return; }
    if (event.key === "Enter" && !event.target.closest("button, a, summary")) { event.preventDefault(); send(); return; }
    const act = Keys.action(event.key);
    if (!act) return;
    event.preventDefault();
    if (tooSoon()) return;
    if (firstKey === null) firstKey = performance.now() - shownAt;
    if (ACTS[act]) ACTS[act](); else choose(act);
  });

  const singleKeys = document.getElementById("single-keys");
  singleKeys.checked = Keys.areOn();
  singleKeys.addEventListener("change", () => Keys.switchOn(singleKeys.checked));

  Rest.start(stage.dataset.who);
  Outbox.start(stage.dataset.who, csrf, ({ waiting, text, refused }) => {
    const chip = document.getElementById("saved");
    if (text && chip.textContent !== text) chip.textContent = text;
    chip.classList.toggle("is-waiting", waiting > 0);
    if (refused) { refusal = refused; say(refused); }
  });
  begin();
  if (Outbox.waiting().includes(item.dataset.assignment)) forward();  // loaded again before its vote was sent
})();
