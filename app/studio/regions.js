/** The regions as words: a list to choose from, a form to edit, keys that do all a mouse does. */

import { at, fill, isTyping, make } from "./dom.js";
import { createObject, hasRoom } from "./canvas.js";
import { nameOf, refuse } from "./messages.js";
import { takeNumber } from "./numbers.js";
import { MOST_DEPTH, duplicated, fromFrontToBack, hueOf, moved, placeOf, resized, tidy } from "./plan.js";

const STEP = 0.01;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function mountRegions(store, canvas) {
  store.listen((changed) => {
    if (changed.has("plan") || changed.has("selected")) {
      listRegions(store);
      showForm(store);
    }
  });
  at("region").addEventListener("input", ({ target }) => target.type !== "number" && takeWords(store, target));
  at("region").addEventListener("change", ({ target }) => {
    if (target.type === "number") takeNumber(target, shownIn(target, chosenOf(store)), () => takePlace(store, target));
    else checkLength(store, target);
  });
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

function chosenOf(store) {
  return store.get("plan")?.objects[store.get("selected")];
}

function actions(store, canvas) {
  const chosen = () => chosenOf(store);
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
    forward: () => (change((thing) => (thing.z = Math.min(thing.z + 1, MOST_DEPTH))), say()),
    backward: () => (change((thing) => (thing.z = Math.max(thing.z - 1, -MOST_DEPTH))), say()),
    duplicate() {
      const index = store.get("selected");
      if (!chosen() || !hasRoom(store)) return;
      const selected = store.get("plan").objects.length;
      store.edit((plan) => void plan.objects.push(duplicated(plan.objects[index])), { selected });
      say();
    },
    delete() {
      const index = store.get("selected");
      if (!chosen()) return;
      at("said").textContent = `${chosen().high} deleted.`;
      const hadFocus = at("region").contains(document.activeElement);
      store.edit((plan) => void plan.objects.splice(index, 1));
      if (hadFocus && !chosen()) at("new-box").focus();
    },
    choose(step) {
      const order = fromFrontToBack(store.get("plan")?.objects ?? []);
      if (!order.length) return;
      const place = order.indexOf(store.get("selected"));
      const first = step > 0 ? 0 : order.length - 1;
      store.set({ selected: place < 0 ? order[first] : order[(place + step + order.length) % order.length] });
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
  const rows = new Map();
  for (const index of fromFrontToBack(objects)) {
    const thing = objects[index];
    const chip = make("span", { className: "chip", "aria-hidden": "true" });
    chip.style.background = `hsl(${hueOf(index)} 85% 50%)`;
    const depth = thing.z === 0 ? "" : `depth ${thing.z}`;
    const facts = [thing.low, placeOf(thing), depth].filter(Boolean).join(" \u00b7 ");
    const words = make("span", {}, `${index + 1} ${thing.high}`, make("small", {}, facts));
    const button = make(
      "button",
      { type: "button", "aria-pressed": String(index === chosen), on: { click: () => store.set({ selected: index }) } },
      chip,
      words,
    );
    rows.set(index, make("li", {}, button));
  }
  fill(list, ...rows.values());
  if (hadFocus) (rows.get(chosen) ?? list).querySelector("button")?.focus();
}

function showForm(store) {
  const form = at("region");
  const index = store.get("selected");
  const thing = store.get("plan")?.objects[index];
  form.hidden = !thing;
  if (!thing) return;
  at("region-title").textContent = `Region ${index + 1}`;
  for (const input of form.querySelectorAll("input")) {
    const value = shownIn(input, thing);
    input.disabled = Boolean(input.dataset.place) && !thing.box;
    if (input.value !== value) input.value = value;
  }
}

/** What a field of the form shows of a region. */
function shownIn({ dataset: { region, place } }, thing) {
  if (region) return String(thing[region]);
  const { x0, y0, x1, y1 } = thing.box ?? { x0: 0, y0: 0, x1: 1, y1: 1 };
  const share = { left: x0, top: y0, width: x1 - x0, height: y1 - y0 }[place];
  return String(Math.round(share * 10_000) / 100);
}

function takeWords(store, input) {
  const index = store.get("selected");
  const { region } = input.dataset;
  store.edit(
    (plan) => {
      plan.objects[index][region] = input.value;
      if (region === "high") plan.objects[index].name = input.value.slice(0, 80) || "thing";
    },
    { name: `${region}-${index}` },
  );
}

/** Words are never cut off; what is too long is said, and kept until somebody shortens it. */
function checkLength(store, input) {
  const most = store.get("server")?.max_text_chars ?? Infinity;
  const num = [...input.value].length;
  if (num > most) refuse(input, `${num} characters are too many: at most ${most}.`);
}

function takePlace(store, input) {
  const index = store.get("selected");
  const { region, place } = input.dataset;
  const value = Number(input.value);
  store.edit(
    ({ objects: { [index]: thing } }) => {
      if (region) thing[region] = value;
      else thing.box = placed(thing.box, place, value / 100);
    },
    { name: `${region ?? place}-${index}` },
  );
  const taken = shownIn(input, chosenOf(store));
  if (Math.abs(Number(taken) - value) > 0.01) {
    refuse(input, `${nameOf(input)} is ${taken}: a region ends where the picture does.`);
  }
}

function placed(box, place, share) {
  if (place === "left") return moved(box, share - box.x0, 0);
  if (place === "top") return moved(box, 0, share - box.y0);
  if (place === "width") return tidy({ ...box, x1: box.x0 + share });
  return tidy({ ...box, y1: box.y0 + share });
}
