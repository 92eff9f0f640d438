/**
 * The one state of the page: what is asked for, what is chosen, what was painted.
 *
 * Edits of the plan can be undone; everything else is simply set. Whoever shows a part of the state
 * listens, and is told which parts changed.
 */

import { readPlan } from "./plan.js";

const DRAFT = "fewstroke.draft";
const MOST_UNDOS = 200;
const SAME_EDIT_MS = 1000;

const FRESH = {
  prompt: "",
  plan: null,
  selected: -1,
  settings: {},
  picture: null,
  work: { phase: "idle" },
  server: null,
  model: null,
};

export class Store {
  #state;
  #listeners = [];
  #undo = [];
  #redo = [];
  #lastEdit = { name: null, at: 0 };

  constructor() {
    this.#state = { ...FRESH, ...readDraft() };
  }

  get(name) {
    return this.#state[name];
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  /** Call `act` with the names of what changed, now and after every change. */
  listen(act) {
    this.#listeners.push(act);
    act(new Set(Object.keys(this.#state)));
  }

  /** Set parts of the state. */
  set(patch) {
    Object.assign(this.#state, patch);
    this.#tell(Object.keys(patch));
  }

  /** Set one field of the settings; an empty one is as the model has it. */
  setting(name, value) {
    const settings = { ...this.#state.settings, [name]: value };
    if (value === "" || value === null) delete settings[name];
    this.set({ settings });
  }

  /**
   * Change the plan so that it can be undone.
   * @param {(plan: object) => object|void} change works on a copy, or returns another plan
   * @param {{name?: string, selected?: number}} options edits of one name that follow each other
   *   quickly, such as typing, are undone together
   */
  edit(change, { name = null, selected } = {}) {
    const before = this.#snapshot();
    const copy = structuredClone(this.#state.plan);
    const plan = change(copy) ?? copy;
    const now = performance.now();
    const isSame = name !== null && name === this.#lastEdit.name && now - this.#lastEdit.at < SAME_EDIT_MS;
    if (!isSame) this.#undo.push(before);
    if (this.#undo.length > MOST_UNDOS) this.#undo.shift();
    this.#redo = [];
    this.#lastEdit = { name, at: now };
    this.set({ plan, selected: bounded(selected ?? this.#state.selected, plan) });
  }

  /** Go back to a picture: its plan, which can be undone, its sentence and its settings. */
  recall(picture) {
    const { planner, count } = this.#state.settings;
    const { seed, variant } = picture.facts;
    const settings = { planner, count, ...picture.settings, variant, seed: seed === undefined ? seed : String(seed) };
    const known = Object.entries(settings).filter(([, value]) => value !== undefined);
    this.edit(() => picture.plan, { selected: -1 });
    this.set({ prompt: picture.prompt, settings: Object.fromEntries(known), picture });
  }

  undo() {
    this.#travel(this.#undo, this.#redo);
  }

  redo() {
    this.#travel(this.#redo, this.#undo);
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.#snapshot());
    this.#lastEdit = { name: null, at: 0 };
    const { plan, selected } = from.pop();
    const patch = { plan, selected: bounded(selected, plan) };
    // another sentence's plan brings its sentence along; a moved box leaves what was typed alone
    if (plan && plan.prompt !== this.#state.plan?.prompt) patch.prompt = plan.prompt;
    this.set(patch);
  }

  #snapshot() {
    const { plan, selected } = this.#state;
    return { plan, selected };
  }

  #tell(names) {
    const changed = new Set(names);
    for (const act of this.#listeners) act(changed);
    if (["prompt", "plan", "settings"].some((name) => changed.has(name))) this.#keepDraft();
  }

  #keepDraft() {
    const { prompt, plan, settings } = this.#state;
    try {
      localStorage.setItem(DRAFT, JSON.stringify({ prompt, plan, settings }));
    } catch {
      // a full or forbidden storage loses the draft at reload, nothing else
    }
  }
}

function readDraft() {
  try {
    const { prompt, plan, settings } = JSON.parse(localStorage.getItem(DRAFT) ?? "{}");
    return {
      prompt: typeof prompt === "string" ? prompt : "",
      plan: plan ? readPlan(plan) : null,
      settings: Object.fromEntries(
        Object.entries(settings ?? {}).filter(([, value]) => ["string", "number"].includes(typeof value)),
      ),
    };
  } catch {
    return {}; // a draft that cannot be shown must not keep the page from opening
  }
}

function bounded(selected, plan) {
  return Math.min(selected, (plan?.objects.length ?? 0) - 1);
}
