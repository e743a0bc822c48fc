// Votes that the server has not acknowledged yet. They are kept in localStorage, so that neither a lost network nor a reload loses one,
// and are sent in order, each with the key that makes a repeat harmless.
"use strict";
const Outbox = (() => {
  const RETRY_MS = [1000, 2000, 5000, 15000];
  let name = "", token = "", nouns = ["vote", "votes"], sending = null, failures = 0, timer = 0, show = () => {};

  const load = (where = name) => { try { return JSON.parse(localStorage.getItem(where) || "[]"); } catch { return []; } };
  const store = (entries, where = name) => localStorage.setItem(where, JSON.stringify(entries));

  function start(who, csrf, onChange, words = nouns) {
    name = `fairlead.outbox.${who}`; token = csrf; show = onChange; nouns = words;
    addEventListener("online", () => flush());
    addEventListener("storage", (event) => { if (event.key === name) tell(); });
    return flush();
  }

  function tell(problem = "") {
    const waiting = load().length;
    const text = waiting === 0 ? `All ${nouns[1]} are saved` : `${waiting} ${nouns[waiting === 1 ? 0 : 1]} kept here${problem ? `: ${problem}` : ", not sent yet"}`;
    show({ waiting, text });
  }

  function put(url, fields) {
    const entry = { url, fields, key: fields.key };
    store([...load(), entry]);
    tell();
    flush();
    return entry;
  }

  // Takes an entry back that was not sent; false when it is too late.
  function take(key) {
    const entries = load();
    if (!entries.some((entry) => entry.key === key) || (sending && entries[0].key === key)) return false;
    store(entries.filter((entry) => entry.key !== key));
    tell();
    return true;
  }

  async function send(url, fields) {
    const abort = new AbortController(), limit = setTimeout(() => abort.abort(), 15000);
    try {
      return await fetch(url, {
        method: "POST", body: new URLSearchParams(fields), signal: abort.signal,
        headers: { accept: "application/json", "x-csrf-token": token },
      });
    } finally { clearTimeout(limit); }
  }

  function flush() {
    clearTimeout(timer);
    sending = sending || drain().finally(() => { sending = null; });
    return sending;
  }

  async function drain() {
    for (let entries = load(); entries.length; entries = load()) {
      const entry = entries[0];
      let problem = "no network";
      try {
        const reply = await send(entry.url, entry.fields);
        if (reply.ok) { failures = 0; remove(entry.key); tell(); continue; }
        const said = await reply.json().then((body) => body.error.message, () => `answer ${reply.status}`);
        if (![401, 403, 408, 421, 429].includes(reply.status) && reply.status < 500) { refuse(entry, said); continue; }
        problem = said;
      } catch { /* the network is gone; the entry stays */ }
      tell(problem);
      timer = setTimeout(flush, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
      return;
    }
    tell();
  }

  const remove = (key) => store(load().filter((entry) => entry.key !== key));

  // The server will never take it: it is put aside with what was said, not thrown away.
  function refuse(entry, said) {
    store([...load(`${name}.refused`), { ...entry, said }], `${name}.refused`);
    remove(entry.key);
    show({ waiting: load().length, text: "", refused: `A ${nouns[0]} was not taken: ${said}` });
    tell();
  }

  return { start, put, take, send, flush, waiting: () => load().map((entry) => entry.fields.assignment), isSending: () => sending };
})();
