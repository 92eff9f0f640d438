/** What the page says: a line of status, and errors beside what caused them. */

import { at, fill, make } from "./dom.js";

const FIELDS = { n: "count", "plan.topic": "content", "plan.prompt": "prompt", negative_prompt: "negative" };
const PARTS = { name: "high", high: "high", low: "low", negative: "region-negative", weight: "weight", z: "z" };
const PLACES = { x0: "left", y0: "top", x1: "width", y1: "height" };

/**
 * Say something where people look while they wait.
 * @param {string} aside what changes every second, and is not read out each time
 */
export function say(text, { id = "status", isBad = false, aside = "" } = {}) {
  const [line, tail] = at(id).children;
  if (line?.textContent === text && tail) {
    tail.textContent = aside;
    return;
  }
  const said = make("span", { className: isBad ? "bad" : "" }, text);
  fill(at(id), said, make("span", { "aria-hidden": "true" }, aside));
}

/** Tell an error beside the field that caused it, or else on the line of status. */
export function tell(error, store, { id = "status" } = {}) {
  const field = fieldOf(error.param ?? "", store);
  if (!field || !field.closest("main").contains(at(id))) {
    say(error.message, { id, isBad: true });
    return;
  }
  say("Not done: see what is marked.", { id, isBad: true });
  for (let around = field.closest("details"); around; around = around.parentElement.closest("details")) {
    around.open = true;
  }
  const note = make("p", { className: "error", id: `${field.id}-error` }, error.message);
  (field.closest(".ask-row") ?? field).after(note);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", note.id);
  field.addEventListener("input", () => clear(field), { once: true });
  field.focus();
}

/** Take back all that was told of fields. */
export function clearErrors() {
  for (const field of document.querySelectorAll("[aria-invalid]")) clear(field);
}

function clear(field) {
  at(`${field.id}-error`)?.remove();
  field.removeAttribute("aria-invalid");
  field.removeAttribute("aria-describedby");
}

function fieldOf(param, store) {
  const region = /^plan\.objects\[(\d+)\]\.?(\w*)\.?(\w*)/.exec(param);
  if (region) {
    store.set({ selected: Number(region[1]) });
    return at(PARTS[region[2]] ?? PLACES[region[3]] ?? "high");
  }
  const name = FIELDS[param] ?? param.replace(/^plan\./, "");
  const field = name ? at(name) : null;
  return field?.matches("input:not([type=file]), select, textarea") ? field : null;
}
