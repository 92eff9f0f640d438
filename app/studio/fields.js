/** The fields beside the canvas: sentence, whole picture, settings, and where the plan is from. */

import { apiKey } from "./api.js";
import { at, fill, make } from "./dom.js";
import { ensurePlan } from "./canvas.js";
import { takeNumber } from "./numbers.js";

export function mountFields(store) {
  const prompt = at("prompt");
  prompt.addEventListener("input", () => store.set({ prompt: prompt.value }));
  at("whole").addEventListener("input", ({ target }) => {
    ensurePlan(store);
    store.edit((plan) => void (plan[target.dataset.plan] = target.value), { name: target.id });
  });
  at("settings").addEventListener("change", ({ target }) => {
    const { setting } = target.dataset;
    const accept = (text) => store.setting(setting, text);
    if (target.type === "number") takeNumber(target, store.get("settings")[setting] ?? "", accept);
    else accept(target.value);
  });
  at("batch-form").addEventListener("change", ({ target }) => {
    if (target.type === "number") takeNumber(target, "", () => {});
  });
  at("api-key").addEventListener("change", ({ target }) => apiKey.set(target.value.trim()));
  at("key-field").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["whole", "settings", "region", "exchange"]) {
    at(id).addEventListener("submit", (event) => event.preventDefault());
  }
  store.listen((changed) => {
    if (changed.has("prompt")) put(prompt, store.get("prompt"));
    if (changed.has("plan")) {
      for (const input of at("whole").querySelectorAll("[data-plan]")) {
        put(input, store.get("plan")?.[input.dataset.plan] ?? "");
      }
    }
    if (changed.has("plan") || changed.has("prompt")) showSource(store);
    if (changed.has("model") || changed.has("server")) listChoices(store);
    if (["settings", "model", "server"].some((name) => changed.has(name))) {
      for (const input of at("settings").querySelectorAll("[data-setting]")) {
        // the server is looked at every few seconds, and must not take away what is being typed
        if (!changed.has("settings") && document.activeElement === input) continue;
        const value = store.get("settings")[input.dataset.setting];
        put(input, value ?? (input.id === "count" ? "1" : ""));
      }
    }
  });
}

function put(input, value) {
  if (input.value !== value) input.value = value;
}

function showSource(store) {
  const plan = store.get("plan");
  const origin = plan?.provenance;
  const isStale = plan && plan.prompt.trim() !== store.get("prompt").trim();
  const by = { grammar: "Planned by the grammar.", openai: `Planned by ${origin?.model}.`, user: "Made by hand." };
  at("plan-source").textContent = !plan
    ? "No plan yet."
    : isStale
      ? "These regions were made for another sentence. Plan makes new ones; Paint keeps those that you changed."
      : (by[origin?.planner] ?? "");
  const notes = [
    ...(origin?.fallback ? [`The planner that was asked for failed: ${origin.fallback}. The grammar planned instead.`] : []),
    ...(origin?.notes ?? []),
    ...(origin?.repairs ?? []).map((repair) => `Mended (${repair.kind}): ${repair.object}: ${repair.detail}`),
  ];
  fill(at("repairs"), ...notes.map((text) => make("li", {}, text)));
}

function listChoices(store) {
  const model = store.get("model");
  const server = store.get("server");
  if (model) {
    const variants = Object.entries(model.served);
    const label = ([name, card]) => `${name} (${card.steps} steps, ${card.bits} bits)`;
    choices("variant", variants.map((entry) => [entry[0], label(entry)]), `default: ${model.variant}`);
    choices("size", model.sizes.map((size) => [size, size]), `default: ${model.sizes[0]}`);
    at("steps").max = at("batch-steps").max = model.max_steps;
    at("steps").placeholder = String(model.steps);
    at("guidance").placeholder = String(model.guidance);
  }
  if (server) {
    const names = { grammar: "grammar", openai: "language model" };
    const planners = server.planners.map((name) => [name, names[name] ?? name]);
    choices("planner", planners, "default");
    choices("batch-planner", [["none", "none: sentences as they are"], ...planners], "default");
    at("base_ratio").placeholder = String(server.base_ratio);
    at("key-field").hidden = !server.needs_key;
    if (document.activeElement !== at("api-key")) put(at("api-key"), apiKey.get());
  }
}

function choices(id, entries, none) {
  const before = at(id).value;
  fill(at(id), make("option", { value: "" }, none), ...entries.map(([value, text]) => make("option", { value }, text)));
  at(id).value = entries.some(([value]) => value === before) ? before : "";
}
