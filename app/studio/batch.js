/** Many requests as one job: written as JSONL, followed to its end, taken home as a zip. */

import { call, request, ServerError } from "./api.js";
import { at, fill, make, pause } from "./dom.js";
import { clearErrors, say, tell } from "./messages.js";
import { safeName, toZip } from "./zip.js";

const ENDPOINT = "/v1/images/generations";
const LOOK_EVERY_MS = 1000;
const MOST_THUMBNAILS = 500;
const MOST_INPUT_BYTES = 5_000_000;
const ENDED = new Set(["completed", "failed", "expired", "cancelled"]);
const WORDS = {
  validating: "is checked",
  in_progress: "is painted",
  finalizing: "is put together",
  cancelling: "is stopped",
  completed: "is finished",
  failed: "could not be run",
  expired: "ran out of time",
  cancelled: "was cancelled",
};

export function mountBatch(store) {
  const shown = { id: null, results: [], prompts: new Map(), stop: new AbortController(), urls: [] };
  const send = (file) => guarded(store, () => start(shown, store, file, file.name));

  at("batch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(store, () => start(shown, store, jsonlOf(at("prompts").value)));
  });
  at("open-jsonl").addEventListener("click", () => at("jsonl").click());
  at("jsonl").addEventListener("change", () => {
    const [file] = at("jsonl").files;
    at("jsonl").value = "";
    if (file) send(file);
  });
  at("cancel-batch").addEventListener("click", () =>
    guarded(store, async () => showState(await call(`v1/batches/${shown.id}/cancel`, { method: "POST" }))),
  );
  at("zip").addEventListener("click", () => saveZip(shown));
  return {
    /** Called when the page is turned to. */
    open: () => guarded(store, () => listBatches(shown, store)),
    send,
  };
}

async function guarded(store, act) {
  clearErrors();
  try {
    await act();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ServerError)) throw error;
    tell(error, store, { id: "batch-status" });
  }
}

/** Write one request a line, named by the line on which its sentence stands. */
export function jsonlOf(text) {
  const typed = text.split("\n").map((line) => line.trim());
  const numbered = typed.map((prompt, place) => ({ prompt, number: place + 1 })).filter(({ prompt }) => prompt);
  if (!numbered.length) throw new ServerError("Write a sentence, or open a JSONL file.", { param: "prompts" });
  const seed = at("batch-seed").value.trim();
  const steps = at("batch-steps").value.trim();
  const planner = at("batch-planner").value;
  const width = String(typed.length).length;
  const lines = numbered.map(({ prompt, number }, place) => {
    const body = { prompt };
    if (seed) body.seed = Number(seed) + place;
    if (steps) body.steps = Number(steps);
    if (planner) body.planner = planner;
    const custom_id = `line-${String(number).padStart(width, "0")}`;
    return JSON.stringify({ custom_id, method: "POST", url: ENDPOINT, body });
  });
  return new Blob([`${lines.join("\n")}\n`], { type: "application/jsonl" });
}

async function start(shown, store, content, name = "studio.jsonl") {
  say("Sending", { id: "batch-status" });
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", content, name);
  const file = await call("v1/files", { body: form });
  const body = { input_file_id: file.id, endpoint: ENDPOINT, completion_window: "24h" };
  const batch = await call("v1/batches", { body });
  say("Sent. The server keeps it, also if this page is closed.", { id: "batch-status" });
  await listBatches(shown, store);
  await follow(shown, batch);
  await listBatches(shown, store);
}

async function follow(shown, first) {
  shown.stop.abort();
  shown.urls.forEach((url) => URL.revokeObjectURL(url));
  Object.assign(shown, { id: first.id, results: [], urls: [], stop: new AbortController() });
  const { signal } = shown.stop;
  fill(at("batch-pictures"));
  at("batch").hidden = false;
  at("zip").disabled = true;
  let batch = first;
  for (;;) {
    showState(batch);
    if (ENDED.has(batch.status)) break;
    await pause(LOOK_EVERY_MS, signal);
    try {
      batch = await call(`v1/batches/${batch.id}`, { signal });
      say("", { id: "batch-status" });
    } catch (error) {
      // a server that is restarted goes on with its batches: ask until it is back
      if (error.code !== "unreachable") throw error;
      say("The server cannot be reached; the batch goes on when it is back.", { id: "batch-status", isBad: true });
    }
  }
  await showResults(shown, batch, signal);
}

function showState(batch) {
  const { total, completed, failed } = batch.request_counts;
  at("batch-progress").value = total ? (completed + failed) / total : 0;
  at("batch-counts").textContent =
    `The batch ${WORDS[batch.status] ?? batch.status}: ${completed} of ${total} painted` + (failed ? `, ${failed} failed.` : ".");
  at("cancel-batch").disabled = ENDED.has(batch.status) || batch.status === "cancelling";
  const errors = (batch.errors?.data ?? []).map(({ line, message }) => (line ? `Line ${line}: ${message}` : message));
  fill(at("batch-errors"), ...errors.map((text) => make("li", {}, text)));
}

async function showResults(shown, batch, signal) {
  shown.prompts = await readPrompts(batch, signal);
  for (const id of [batch.output_file_id, batch.error_file_id].filter(Boolean)) {
    const response = await request(`v1/files/${id}/content`, { signal });
    for (const line of (await response.text()).split("\n").filter(Boolean)) {
      await showResult(shown, JSON.parse(line), signal);
    }
  }
  at("zip").disabled = shown.results.length === 0;
}

/** The sentences of a batch by the names of its requests; none of a very large one. */
async function readPrompts(batch, signal) {
  const prompts = new Map();
  try {
    const { bytes } = await call(`v1/files/${batch.input_file_id}`, { signal });
    if (bytes > MOST_INPUT_BYTES) return prompts;
    const response = await request(`v1/files/${batch.input_file_id}/content`, { signal });
    for (const line of (await response.text()).split("\n").filter((text) => text.trim())) {
      const { custom_id, body } = JSON.parse(line);
      prompts.set(custom_id, String(body.prompt));
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // a file that was deleted or is no JSON leaves its pictures without their sentences
  }
  return prompts;
}

async function showResult(shown, line, signal) {
  const failure = line.error ?? line.response?.body?.error;
  if (failure) {
    const said = shown.prompts.get(line.custom_id);
    const name = said ? `${line.custom_id} (${said})` : line.custom_id;
    at("batch-errors").append(make("li", {}, `${name}: ${failure.message ?? failure.code}`));
    return;
  }
  const { data, output_format: kind = "png" } = line.response.body;
  for (const [place, image] of data.entries()) {
    const bytes = await bytesOf(image, signal);
    const name = data.length > 1 ? `${line.custom_id}-${place + 1}` : line.custom_id;
    shown.results.push({ name, kind, bytes });
    const said = shown.prompts.get(line.custom_id);
    if (shown.results.length <= MOST_THUMBNAILS) showThumbnail(shown, { name, kind, bytes, said, seed: image.seed });
  }
}

async function bytesOf(image, signal) {
  if (image.b64_json) return Uint8Array.from(atob(image.b64_json), (char) => char.charCodeAt(0));
  const response = await request(`v1/files/${image.file_id}/content`, { signal });
  return new Uint8Array(await response.arrayBuffer());
}

function showThumbnail(shown, { name, kind, bytes, said, seed }) {
  const url = URL.createObjectURL(new Blob([bytes], { type: `image/${kind}` }));
  shown.urls.push(url);
  const image = make("img", { src: url, alt: said ?? name, loading: "lazy" });
  const facts = seed === undefined ? name : `${name}, seed ${seed}`;
  const caption = make("p", {}, said ?? "", make("small", {}, facts));
  at("batch-pictures").append(make("li", { className: "card" }, image, caption));
}

function saveZip(shown) {
  const taken = new Set();
  const files = shown.results.map(({ name, kind, bytes }) => ({ name: `${safeName(name, taken)}.${kind}`, bytes }));
  const url = URL.createObjectURL(toZip(files));
  make("a", { href: url, download: `${shown.id}.zip` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function listBatches(shown, store) {
  const { data } = await call("v1/batches?limit=20");
  const rows = data.map((batch) => {
    const when = new Date(batch.created_at * 1000).toLocaleString();
    const { total, completed, failed } = batch.request_counts;
    const counts = `${completed} of ${total}${failed ? `, ${failed} failed` : ""}`;
    const button = make(
      "button",
      { type: "button", on: { click: () => guarded(store, () => follow(shown, batch)) } },
      "Show",
    );
    button.setAttribute("aria-label", `Show the batch of ${when}`);
    return make("li", {}, `${when}: ${counts}, ${batch.status.replace("_", " ")}`, button);
  });
  fill(at("batches"), ...(rows.length ? rows : [make("li", {}, "None yet.")]));
}
