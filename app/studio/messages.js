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
  const param = error.status === 401 ? "api-key" : (error.param ?? "");
  const field = fieldOf(param, store);
  if (!field || !(field.closest("header") ?? field.closest("main").contains(at(id)))) {
    say(inWords(error.message, "plan.objects", "Regions"), { id, isBad: true });
    return;
  }
  const part = /^plan\.objects\[\d+\]\.?(\w*)/.exec(param)?.[1];
  const isOnForm = part === undefined || part in PARTS;
  const name = isOnForm ? nameOf(field) : `${at("region-title").textContent}: its ${part || "fields"}`;
  const text = inWords(error.message, param, name);
  for (let around = field.closest("details"); around; around = around.parentElement.closest("details")) {
    around.open = true;
  }
  if (field.closest(".ask-row")) {
    // the line of status is the line below this field, and there is room on it already
    say(text, { id, isBad: true });
    mark(field, id);
  } else {
    say(`Not done: see ${name}.`, { id, isBad: true });
    refuse(field, text);
  }
  field.focus();
}

/** Say below a field why what stands in it is not taken. */
export function refuse(field, text) {
  clear(field);
  const note = make("p", { className: "error", id: `${field.id}-error`, role: "alert" }, text);
  (field.closest(".numbers") ?? field).after(note);
  mark(field, note.id);
}

/** Take back all that was told of fields. */
export function clearErrors() {
  for (const field of document.querySelectorAll("[aria-invalid]")) clear(field);
}

/** What a field is called on the page. */
export function nameOf(field) {
  const label = document.querySelector(`label[for="${field.id}"]`).textContent.trim();
  return field.closest("#region") ? `${label} (${at("region-title").textContent})` : label;
}

function mark(field, describedBy) {
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", describedBy);
  field.addEventListener("input", () => clear(field), { once: true });
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

/** The server names fields as its API does; people know them by their labels. */
function inWords(message, param, name) {
  const path = param.replace(/[.[\]]/g, "\\$&");
  return message.replace(new RegExp(`\`?(?<![\\w.])${path}(?![\\w.[])\`?`, "g"), name).replaceAll("`", "");
}
