/** The regions as words: a list to choose from, a form to edit, keys that do all a mouse does. */

import { at, fill, isTyping, make } from "./dom.js";
import { createObject } from "./canvas.js";
import { duplicated, hueOf, moved, placeOf, resized, tidy } from "./plan.js";

const STEP = 0.01;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function mountRegions(store, canvas) {
  store.listen((changed) => {
    if (changed.has("plan") || changed.has("selected")) {
      listRegions(store);
      showForm(store);
    }
  });
  at("region").addEventListener("input", (event) => takeField(store, event.target));
  at("region").addEventListener("change", () => showForm(store, { isFinal: true }));
  const acts = actions(store, canvas);
  for (const name of ["forward", "backward", "duplicate", "delete", "undo", "redo"]) {
    at(name).addEventListener("click", acts[name]);
  }
  at("stage").addEventListener("keydown", (event) => onKey(event, acts));
  at("regions").addEventListener("keydown", (event) => onKey(event, acts));
  document.addEventListener("keydown", (event) => onShortcut(event, acts));
  store.listen(() => {
    at("undo").disabled = !store.canUndo;
    at("redo").disabled = !store.canRedo;
  });
}

function actions(store, canvas) {
  const chosen = () => store.get("plan")?.objects[store.get("selected")];
  const change = (act, name) => {
    const index = store.get("selected");
    if (chosen()) store.edit((plan) => void act(plan.objects[index]), { name: name && `${name}-${index}` });
  };
  const say = () => chosen() && (at("said").textContent = `${chosen().high}: ${placeOf(chosen())}, depth ${chosen().z}`);
  return {
    move(dx, dy, isResize) {
      const by = isResize ? resized : moved;
      change((thing) => thing.box && (thing.box = by(thing.box, dx * STEP, dy * STEP)), "keys");
      say();
    },
    forward: () => (change((thing) => (thing.z = Math.min(thing.z + 1, 1000))), say()),
    backward: () => (change((thing) => (thing.z = Math.max(thing.z - 1, -1000))), say()),
    duplicate() {
      const index = store.get("selected");
      if (!chosen()) return;
      const selected = store.get("plan").objects.length;
      store.edit((plan) => void plan.objects.push(duplicated(plan.objects[index])), { selected });
      say();
    },
    delete() {
      const index = store.get("selected");
      if (!chosen()) return;
      at("said").textContent = `${chosen().high} deleted.`;
      store.edit((plan) => void plan.objects.splice(index, 1));
    },
    choose(step) {
      const num = store.get("plan")?.objects.length ?? 0;
      if (num) store.set({ selected: (store.get("selected") + step + num) % num });
      say();
    },
    create: () => (createObject(store), say()),
    leave: () => (canvas.setDrawing(false), store.set({ selected: -1 })),
    undo: () => (store.undo(), (at("said").textContent = "Undone.")),
    redo: () => (store.redo(), (at("said").textContent = "Done again.")),
    boxes: () => at("show-boxes").click(),
    masks: () => at("show-masks").click(),
  };
}

function onKey(event, acts) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const keys = {
    ",": () => acts.choose(-1),
    ".": () => acts.choose(1),
    "[": acts.backward,
    "]": acts.forward,
    d: acts.duplicate,
    n: acts.create,
    b: acts.boxes,
    m: acts.masks,
    Delete: acts.delete,
    Backspace: acts.delete,
    Escape: acts.leave,
  };
  const arrow = ARROWS[key];
  if (!arrow && !keys[key]) return;
  event.preventDefault();
  if (arrow) acts.move(...arrow, event.shiftKey);
  else keys[key]();
}

function onShortcut(event, acts) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  // fields that are no part of the plan keep the browser's own undo
  if (isTyping(event) && !event.target.matches("[data-region], [data-place], [data-plan]")) return;
  const key = event.key.toLowerCase();
  const act = key === "y" || (key === "z" && event.shiftKey) ? acts.redo : key === "z" ? acts.undo : null;
  if (!act) return;
  event.preventDefault();
  act();
}

function listRegions(store) {
  const list = at("regions");
  const hadFocus = list.contains(document.activeElement);
  const objects = store.get("plan")?.objects ?? [];
  const chosen = store.get("selected");
  const rows = objects.map((thing, index) => {
    const chip = make("span", { className: "chip", "aria-hidden": "true" });
    chip.style.background = `hsl(${hueOf(index)} 85% 50%)`;
    const words = make("span", {}, thing.high, make("small", {}, [thing.low, placeOf(thing)].filter(Boolean).join(" \u00b7 ")));
    const button = make(
      "button",
      { type: "button", "aria-pressed": String(index === chosen), on: { click: () => store.set({ selected: index }) } },
      chip,
      words,
    );
    return make("li", {}, button);
  });
  fill(list, ...rows);
  if (hadFocus) (rows[chosen] ?? rows.at(-1))?.firstChild.focus();
}

function showForm(store, { isFinal = false } = {}) {
  const form = at("region");
  const index = store.get("selected");
  const thing = store.get("plan")?.objects[index];
  form.hidden = !thing;
  if (!thing) return;
  at("region-title").textContent = `Region ${index + 1}`;
  const { x0, y0, x1, y1 } = thing.box ?? { x0: 0, y0: 0, x1: 1, y1: 1 };
  const places = { left: x0, top: y0, width: x1 - x0, height: y1 - y0 };
  for (const input of form.querySelectorAll("input")) {
    const { region, place } = input.dataset;
    const value = region ? String(thing[region]) : String(Math.round(places[place] * 1000) / 10);
    input.disabled = Boolean(place) && !thing.box;
    // what is being typed stays as it is until it is finished
    const isTyped = document.activeElement === input && input.type === "number" && !isFinal;
    if (!isTyped && input.value !== value) input.value = value;
  }
}

function takeField(store, input) {
  const index = store.get("selected");
  const { region, place } = input.dataset;
  const isNumber = input.type === "number";
  if (isNumber && !input.validity.valid) return;
  if (isNumber && input.value === "") return;
  const value = isNumber ? Number(input.value) : input.value;
  store.edit(
    (plan) => {
      const thing = plan.objects[index];
      if (region) thing[region] = value;
      else thing.box = placed(thing.box, place, value / 100);
      if (region === "high") thing.name = value.slice(0, 80) || "thing";
    },
    { name: `${region ?? place}-${index}` },
  );
}

function placed(box, place, share) {
  if (place === "left") return moved(box, share - box.x0, 0);
  if (place === "top") return moved(box, 0, share - box.y0);
  if (place === "width") return tidy({ ...box, x1: box.x0 + share });
  return tidy({ ...box, y1: box.y0 + share });
}
