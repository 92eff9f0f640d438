/**
 * The studio, in the order in which it comes to life: the state, the canvas, the words, the work,
 * the shelves, and a watch over the server.
 *
 *     store.js     what is asked for, chosen and painted; undo
 *     plan.js      a scene plan as data             numbers.js  what people type
 *     canvas.js    its boxes, by mouse and finger        regions.js  the same, by words and keys
 *     paint.js     plan, wait, watch, cancel             api.js      the server
 *     picture.js   the picture and its facts             masks.js    who hears what
 *     sets.js      side by side                          gallery.js  earlier ones
 *     exchange.js  JSON, links, PNG files                batch.js    many at once
 */

import { call } from "./api.js";
import { mountBatch } from "./batch.js";
import { mountCanvas } from "./canvas.js";
import { at, pause } from "./dom.js";
import { mountExchange } from "./exchange.js";
import { mountFields } from "./fields.js";
import { mountGallery } from "./gallery.js";
import { mountPainting } from "./paint.js";
import { mountPicture } from "./picture.js";
import { mountRegions } from "./regions.js";
import { mountComparing, mountSets } from "./sets.js";
import { Store } from "./store.js";

const WATCH_EVERY_MS = 4000;
const LOST_EVERY_MS = 2000;

// The only text that may ever become markup is none: Konva empties its container that way.
globalThis.trustedTypes?.createPolicy("default", { createHTML: (text) => (text === "" ? text : null) });

async function main() {
  const store = new Store();
  const { showPreview } = mountPicture(store);
  const canvas = mountCanvas(store);
  mountRegions(store, canvas);
  mountFields(store);
  mountTheme();
  const batch = mountBatch(store);
  mountPages(batch);
  const { openSet } = mountSets(store);
  const keeping = mountGallery(store);
  const onPicture = async (picture, { isMain }) => {
    if (isMain) store.set({ picture });
    await (await keeping)(picture);
  };
  const painting = mountPainting(store, { onPicture, onPreview: showPreview, openSet });
  mountComparing(store, { ...painting, openSet, onPicture });
  document.documentElement.dataset.interactive = String(Math.round(performance.now()));
  await mountExchange(store, batch);
  await watchServer(store);
}

/** Ask how the server is, more often while it is away; and what it serves when it is new. */
async function watchServer(store) {
  for (;;) {
    const isWell = await look(store);
    await pause(isWell ? WATCH_EVERY_MS : LOST_EVERY_MS);
  }
}

async function look(store) {
  try {
    const server = await call("studio/state");
    const known = store.get("server");
    if (JSON.stringify(known) !== JSON.stringify(server)) store.set({ server });
    at("server").textContent = describe(server);
    if (!store.get("model") || !known) {
      const { data } = await call("v1/models");
      store.set({ model: data[0] });
    }
    return true;
  } catch (error) {
    const asksForKey = error.status === 401;
    at("server").textContent = asksForKey ? "This server asks for an API key" : "The server cannot be reached";
    if (!asksForKey) store.set({ server: null });
    return false;
  }
}

function describe({ ready, note, num_waiting, num_running }) {
  if (!ready) return note.replace(/\.$/, "");
  const busy = num_waiting + num_running;
  return busy ? `Ready, ${busy} at work` : "Ready";
}

/** Two pages in one document; the address says which. */
function mountPages(batch) {
  function turn() {
    const isBatch = location.hash === "#batch";
    at("page-paint").hidden = isBatch;
    at("page-batch").hidden = !isBatch;
    for (const [id, isHere] of [["nav-paint", !isBatch], ["nav-batch", isBatch]]) {
      if (isHere) at(id).setAttribute("aria-current", "page");
      else at(id).removeAttribute("aria-current");
    }
    document.title = isBatch ? "Batch - Fewstroke studio" : "Fewstroke studio";
    if (isBatch) batch.open();
  }
  addEventListener("hashchange", turn);
  turn();
}

function mountTheme() {
  const themes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const button = at("theme");
  const show = () => (button.textContent = `Theme: ${root.dataset.theme ?? "auto"}`);
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    localStorage.setItem("fewstroke.theme", next);
    show();
  });
  show();
}

main();
