/**
 * From a sentence to a picture: plan, wait, watch it come, or stop it.
 *
 * One piece of work at a time. Whatever goes wrong is said beside what caused it; a full queue is
 * waited for, with the time that the server names.
 */

import { ServerError, call, stream } from "./api.js";
import { at, pause, seconds } from "./dom.js";
import { clearErrors, say, tell } from "./messages.js";

const NUM_PREVIEWS = 3;
const LOOK_EVERY_MS = 1000;
const UNNAMED_WAIT_S = 5;

export function mountPainting(store, { onPicture, onPreview, openSet }) {
  let controller = null;
  let untouched = null; // the plan as the planner made it; every edit makes another

  /** Do one piece of work that can be cancelled. */
  async function busy(phase, act) {
    if (controller) return;
    controller = new AbortController();
    clearErrors();
    setPhase(store, phase);
    try {
      await act(controller.signal);
    } catch (error) {
      if (error.name === "AbortError") say("Cancelled. The work has stopped.");
      else if (error instanceof ServerError) tell(error, store);
      else throw error;
    } finally {
      controller = null;
      setPhase(store, "idle");
      at("progress").value = 0;
    }
  }

  const plan = () =>
    busy("planning", async (signal) => {
      untouched = await makePlan(store, signal);
    });

  const paint = () =>
    busy("painting", async (signal) => {
      if (!store.get("plan") || (isForAnother(store) && store.get("plan") === untouched)) {
        untouched = await makePlan(store, signal);
      }
      const asked = { prompt: sentence(store), plan: store.get("plan"), settings: store.get("settings") };
      const aside = isForAnother(store) ? " Your regions were made for another sentence." : "";
      await paintSeeds(asked, Number(asked.settings.count ?? 1), signal, aside);
    });

  /** Paint what was asked for with so many seeds that follow each other. */
  async function paintSeeds(asked, num, signal, aside = "") {
    setPhase(store, "painting");
    const set = num > 1 ? openSet(`${num} seeds`) : null;
    const cards = Array.from({ length: num }, () => set?.add("Waiting"));
    const finished = [];
    await paintOne(store, asked, signal, {
      changes: { n: num },
      onPreview(index, blob) {
        if (index === 0) onPreview(blob);
        cards[index]?.show(blob);
      },
      async onPicture(index, picture) {
        finished.push(picture);
        const { seed, own_s } = picture.facts;
        cards[index]?.finish(picture, `Seed ${seed}, ${seconds(own_s)}`);
        await onPicture(picture, { isMain: index === 0 });
      },
    });
    const { total_s, seed } = finished[0].facts;
    say(`Finished in ${seconds(total_s)} with seed ${seed}.${aside}`);
  }

  at("plan").addEventListener("click", plan);
  at("cancel").addEventListener("click", () => controller?.abort());
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    paint();
  });
  at("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) at("ask").requestSubmit();
    else plan();
  });
  return { busy, paintSeeds };
}

async function makePlan(store, signal) {
  const prompt = sentence(store);
  say("Planning");
  const { planner, size } = store.get("settings");
  const body = { prompt, ...(planner && { planner }), ...(size && { size }) };
  const plan = await call("v1/plans", { body, signal });
  store.edit(() => ({ ...plan, objects: plan.objects ?? [] }), { selected: -1 });
  const num = plan.objects?.length ?? 0;
  say(`Planned: ${num} ${num === 1 ? "region" : "regions"}. Move them about, or paint.`);
  return store.get("plan");
}

function isForAnother(store) {
  return store.get("plan").prompt.trim() !== sentence(store);
}

/**
 * The request for what somebody asked for, on the page or with an earlier picture.
 * @param {{prompt: string, plan: object, settings: object}} asked settings that are missing are as
 *   the server has them
 * @param {object} changes fields of the request itself
 */
export function requestFor({ prompt, plan, settings }, changes = {}) {
  const { seed, steps, guidance, base_ratio, variant, size } = settings;
  const body = { prompt, plan: { ...plan, prompt }, stream: true, partial_images: NUM_PREVIEWS };
  const numbers = { seed, steps, guidance, base_ratio };
  for (const [name, text] of Object.entries(numbers)) {
    if (text !== undefined) body[name] = numberOf(name, text);
  }
  if (variant) body.variant = variant;
  if (size) body.size = size;
  return { ...body, ...changes };
}

function sentence(store) {
  const prompt = store.get("prompt").trim();
  const most = store.get("server")?.max_prompt_chars ?? Infinity;
  const num = [...prompt].length;
  if (!num) throw new ServerError("Say what you want to see first.", { param: "prompt", code: "empty" });
  if (num <= most) return prompt;
  throw new ServerError(`This sentence has ${num} characters: at most ${most}.`, { param: "prompt", code: "too_long" });
}

function numberOf(name, text) {
  const value = Number(text);
  const isWhole = name === "seed" || name === "steps";
  if (Number.isFinite(value) && (!isWhole || Number.isSafeInteger(value))) return value;
  throw new ServerError(`${text} is not a number that can be used here.`, { param: name, code: "invalid_value" });
}

/**
 * Paint one request, however long the queue is.
 * @param {{prompt: string, plan: object, settings: object}} asked what the pictures remember
 * @param {{onPreview: Function, onPicture: Function, changes: object}} told called as pictures
 *   come; `changes` are fields of the request that no picture needs to remember
 */
export async function paintOne(store, asked, signal, told) {
  for (;;) {
    try {
      await follow(store, asked, signal, told);
      return;
    } catch (error) {
      if (error.code !== "queue_full") throw error;
      await waitForRoom(store, error.retryAfterS ?? UNNAMED_WAIT_S, signal);
    }
  }
}

async function follow(store, asked, signal, told) {
  const body = requestFor(asked, told.changes);
  const began = performance.now();
  const sinceThen = () => (performance.now() - began) / 1000;
  const num = body.n ?? 1;
  const waiting = new AbortController();
  const bar = at("progress");
  let numShown = 0;
  let numFinished = 0;
  let waited_s = 0;
  say("Asking");
  try {
    for await (const { name, data } of stream("v1/images/generations", body, signal)) {
      if (name === "queued") watchQueue(store, data, waiting.signal);
      if (name === "started") {
        waiting.abort();
        waited_s = sinceThen();
        setPhase(store, "painting");
        say(num > 1 ? `Painting ${num} pictures` : "Painting");
      }
      if (name === "image_generation.partial_image") {
        numShown += 1;
        told.onPreview(data.image_index, toBlob(data));
      }
      if (name === "image_generation.completed") {
        numFinished += 1;
        await told.onPicture(data.image_index, pictureOf(data, asked, { waited_s, total_s: sinceThen() }));
      }
      bar.value = Math.min(1, (numShown + numFinished) / (num * (NUM_PREVIEWS + 1)));
    }
  } finally {
    waiting.abort();
  }
  if (numFinished === num) return;
  throw new ServerError("The server stopped in the middle of the picture. Try again in a moment.");
}

/** Say how many are ahead, until the work begins; others may only leave the queue before us. */
async function watchQueue(store, { num_ahead, wait_s }, signal) {
  let ahead = num_ahead;
  let left = wait_s;
  setPhase(store, "waiting");
  for (;;) {
    const place = ahead === 0 ? "You are next" : `${ahead} ${ahead === 1 ? "request is" : "requests are"} ahead of yours`;
    say(`Waiting. ${place}.`, { aside: left > 1 ? ` About ${seconds(left)}.` : "" });
    try {
      await pause(LOOK_EVERY_MS, signal);
      const state = await call("studio/state", { signal });
      ahead = Math.max(0, Math.min(ahead, state.num_waiting - 1));
      left = state.backlog_s;
    } catch {
      return; // the stream itself tells what went wrong
    }
  }
}

async function waitForRoom(store, waitS, signal) {
  setPhase(store, "waiting");
  const whole = Math.ceil(waitS);
  for (let left = whole; left > 0; left -= 1) {
    say(`The server is full. It has room in about ${whole} s, and is asked again as soon as it has.`, { aside: ` ${left} s left.` });
    await pause(LOOK_EVERY_MS, signal);
    if (await hasRoom(signal)) return;
  }
}

async function hasRoom(signal) {
  try {
    const { num_waiting, queue_capacity } = await call("studio/state", { signal });
    return num_waiting < queue_capacity;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return false; // the next request tells what is wrong
  }
}

function pictureOf(event, { prompt, plan: asked, settings }, times) {
  const { b64_json, image_index, type, plan: _painted, ...facts } = event;
  const blob = toBlob(event);
  const own_s = Object.values(facts.timings_s ?? {}).reduce((sum, each) => sum + each, 0);
  return {
    id: `${Date.now()}-${image_index}-${facts.seed}`,
    createdAt: Date.now(),
    blob,
    prompt,
    plan: { ...asked, prompt },
    settings,
    facts: { ...facts, bytes: blob.size, own_s, ...times },
  };
}

function toBlob({ b64_json, output_format }) {
  const bytes = Uint8Array.from(atob(b64_json), (char) => char.charCodeAt(0));
  return new Blob([bytes], { type: `image/${output_format ?? "png"}` });
}

function setPhase(store, phase) {
  store.set({ work: { phase } });
  const isIdle = phase === "idle";
  for (const id of ["plan", "paint", "compare", "more-seeds"]) at(id).disabled = !isIdle;
  at("cancel").disabled = isIdle;
}
