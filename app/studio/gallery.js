/** Earlier pictures, kept in the browser's own database: no server ever sees them again. */

import { at, fill, make } from "./dom.js";
import { readPlan } from "./plan.js";

const DATABASE = "fewstroke-studio";
const PICTURES = "pictures";
const MOST_PICTURES = 200;

export async function mountGallery(store) {
  const shelf = await openShelf();
  let urls = [];
  let forgotten = []; // what the last Forget took, until the next one
  at("history-note").textContent = shelf.isKept
    ? `Kept in this browser only, the last ${MOST_PICTURES}.`
    : "This browser does not let the page keep pictures: they are gone when it is closed.";

  async function draw() {
    const pictures = await shelf.all();
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = pictures.map((picture) => URL.createObjectURL(picture.blob));
    fill(at("history"), ...pictures.map((picture, place) => card(picture, urls[place])));
    at("clear-history").disabled = pictures.length === 0;
    at("restore-history").hidden = forgotten.length === 0;
    at("restore-history").textContent = forgotten.length === 1 ? "Bring it back" : `Bring ${forgotten.length} back`;
  }

  function card(picture, url) {
    const { seed, variant, steps } = picture.facts;
    const name = `${picture.prompt}, seed ${seed}`;
    const show = make(
      "button",
      { type: "button", className: "picture", "aria-label": `Show ${name}`, on: { click: () => recall(picture) } },
      make("img", { src: url, alt: "", loading: "lazy" }),
    );
    const button = make("button", {
      type: "button",
      className: "quiet",
      textContent: "Forget",
      "aria-label": `Forget ${name}`,
      on: { click: () => forget([picture]) },
    });
    return make("li", { className: "card" }, show, make("p", {}, `${variant}, ${steps} steps, seed ${seed}`), button);
  }

  function recall(picture) {
    store.recall(picture);
    at("frame").scrollIntoView({ block: "nearest" });
  }

  async function forget(pictures) {
    for (const { id } of pictures) await shelf.remove(id);
    forgotten = pictures;
    await draw();
    // the button that was pressed is gone: whoever uses keys goes on from the way back
    at("restore-history").focus();
  }

  at("clear-history").addEventListener("click", async () => forget(await shelf.all()));
  at("restore-history").addEventListener("click", async () => {
    for (const picture of forgotten) await shelf.add(picture);
    forgotten = [];
    await draw();
    at("clear-history").focus();
  });
  await draw();
  const [latest] = await shelf.all();
  if (latest && isSame(latest.plan, store.get("plan"))) store.set({ picture: latest });

  /** Keep a picture; the oldest leaves when there are too many. */
  return async (picture) => {
    try {
      await shelf.add(picture);
    } catch (error) {
      at("history-note").textContent = `The browser could not keep the last picture: ${error.message}`;
      return;
    }
    const pictures = await shelf.all();
    for (const old of pictures.slice(MOST_PICTURES)) await shelf.remove(old.id);
    await draw();
  };
}

function isSame(plan, other) {
  // read both: fields then stand in one order
  return other !== null && JSON.stringify(readPlan(plan)) === JSON.stringify(readPlan(other));
}

/** The database, or a list in memory where the browser has none for us. */
async function openShelf() {
  let database;
  try {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(PICTURES, { keyPath: "id" });
    database = await settled(opening);
  } catch {
    return memoryShelf();
  }
  const shelf = (mode) => database.transaction(PICTURES, mode).objectStore(PICTURES);
  return {
    isKept: true,
    add: (picture) => settled(shelf("readwrite").put(picture)),
    remove: (id) => settled(shelf("readwrite").delete(id)),
    all: async () => newestFirst(await settled(shelf("readonly").getAll())),
  };
}

function memoryShelf() {
  const pictures = new Map();
  return {
    isKept: false,
    add: async (picture) => void pictures.set(picture.id, picture),
    remove: async (id) => void pictures.delete(id),
    all: async () => newestFirst([...pictures.values()]),
  };
}

function newestFirst(pictures) {
  return pictures.sort((a, b) => b.createdAt - a.createdAt);
}

function settled(wish) {
  return new Promise((resolve, reject) => {
    wish.onsuccess = () => resolve(wish.result);
    wish.onerror = () => reject(wish.error);
    wish.onblocked = () => reject(new Error("blocked"));
  });
}
