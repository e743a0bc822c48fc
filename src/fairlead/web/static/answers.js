// What is answered beside the verdict: each part (ranking, ratings, passages, an edit) adds itself here, and the rating screen asks them all.
// A part may have begin() for a new item, check() that says what is missing, and acts: keys that do something.
"use strict";
const Answers = (() => {
  const parts = [];
  let changed = () => {};

  const form = () => document.querySelector("form.verdict");

  // The fields of the form as a page without scripts would send them.
  function fields() {
    const found = {};
    if (form()) for (const [name, value] of new FormData(form())) if (!["csrf", "key", "guideline_version"].includes(name)) found[name] = value;
    return found;
  }

  function fill(values) {
    for (const [name, value] of Object.entries(values)) {
      for (const control of form().querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
        if (control.type === "radio") control.checked = control.value === value;
        else control.value = value;
      }
    }
  }

  function begin(values, onChange) {
    changed = onChange;
    if (!form()) return;
    if (values) fill(values);
    parts.forEach((part) => part.begin && part.begin());
  }

  // Where the first missing answer is, in words; empty when nothing is missing.
  function missing() {
    for (const part of parts) {
      const said = part.check ? part.check() : "";
      if (said) return said;
    }
    return "";
  }

  const acts = () => Object.assign({}, ...parts.map((part) => part.acts || {}));

  return { add: (part) => parts.push(part), begin, fields, missing, acts, form, changed: () => changed() };
})();
