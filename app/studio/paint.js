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

  const paint = (changes = {}) =>
    busy("painting", async (signal) => {
      if (!store.get("plan") || (isForAnother(store) && store.get("plan") === untouched)) {
        untouched = await makePlan(store, signal);
      }
      setPhase(store, "painting");
      const body = bodyOf(store, changes);
      const set = body.n > 1 ? openSet(`${body.n} seeds`) : null;
      const cards = Array.from({ length: body.n ?? 1 }, () => set?.add("Waiting"));
      const finished = [];
      await paintOne(store, body, signal, {
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
      const [first] = finished;
      const aside = isForAnother(store) ? " Your regions were made for another sentence." : "";
      say(`Finished in ${seconds(first.facts.total_s)} with seed ${first.facts.seed}.${aside}`);
    });

  at("plan").addEventListener("click", plan);
  at("cancel").addEventListener("click", () => controller?.abort());
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    paint({ n: Number(store.get("settings").count ?? 1) });
  });
  at("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) at("ask").requestSubmit();
    else plan();
  });
  return { busy, paint };
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

/** The request that the page stands for now. */
export function bodyOf(store, changes = {}) {
  const { seed, steps, guidance, base_ratio, variant, size } = store.get("settings");
  const prompt = sentence(store);
  const body = { prompt, plan: { ...store.get("plan"), prompt }, stream: true, partial_images: NUM_PREVIEWS };
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
  if (prompt) return prompt;
  throw new ServerError("Say what you want to see first.", { param: "prompt", code: "empty" });
}

function numberOf(name, text) {
  const value = Number(text);
  const isWhole = name === "seed" || name === "steps";
  if (Number.isFinite(value) && (!isWhole || Number.isSafeInteger(value))) return value;
  throw new ServerError(`${text} is not a number that can be used here.`, { param: name, code: "invalid_value" });
}

/**
 * Paint one request, however long the queue is.
 * @param {object} body the request
 * @param {{onPreview: Function, onPicture: Function}} told called as pictures come
 */
export async function paintOne(store, body, signal, told) {
  for (;;) {
    try {
      await follow(store, body, signal, told);
      return;
    } catch (error) {
      if (error.code !== "queue_full") throw error;
      await waitForRoom(store, error.retryAfterS ?? UNNAMED_WAIT_S, signal);
    }
  }
}

async function follow(store, body, signal, told) {
  const started = performance.now();
  const num = body.n ?? 1;
  const waiting = new AbortController();
  const bar = at("progress");
  let numShown = 0;
  let numFinished = 0;
  say("Asking");
  try {
    for await (const { name, data } of stream("v1/images/generations", body, signal)) {
      if (name === "queued") watchQueue(store, data, waiting.signal);
      if (name === "started") {
        waiting.abort();
        setPhase(store, "painting");
        say(num > 1 ? `Painting ${num} pictures` : "Painting");
      }
      if (name === "image_generation.partial_image") {
        numShown += 1;
        told.onPreview(data.image_index, toBlob(data));
      }
      if (name === "image_generation.completed") {
        numFinished += 1;
        const total_s = (performance.now() - started) / 1000;
        await told.onPicture(data.image_index, pictureOf(data, body, total_s));
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
    say(`The server is full. It has room in about ${whole} s, and is then asked again.`, { aside: ` ${left} s left.` });
    await pause(1000, signal);
  }
}

function pictureOf(event, body, totalS) {
  const { b64_json, image_index, type, plan, ...facts } = event;
  const blob = toBlob(event);
  const own_s = Object.values(facts.timings_s ?? {}).reduce((sum, each) => sum + each, 0);
  return {
    id: `${Date.now()}-${image_index}-${facts.seed}`,
    createdAt: Date.now(),
    blob,
    prompt: body.prompt,
    plan: body.plan,
    facts: { ...facts, bytes: blob.size, total_s: totalS, own_s },
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
