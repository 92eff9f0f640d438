/** Plans in and out: as JSON, as a link, out of a picture. */

import { at } from "./dom.js";
import { fromLink, toLink } from "./link.js";
import { say } from "./messages.js";
import { emptyPlan, readPlan } from "./plan.js";
import { readOrigin } from "./png.js";

const MOST_FILE_BYTES = 50_000_000;

export function mountExchange(store, batch) {
  const json = at("json");
  store.listen((changed) => {
    if (changed.has("plan") && document.activeElement !== json) {
      const plan = store.get("plan");
      json.value = plan ? JSON.stringify(plan, null, 2) : "";
    }
  });

  /** Take a plan from outside; it can be undone like any edit. */
  function take({ plan, prompt = plan.prompt, settings }, note) {
    store.edit(() => plan, { selected: -1 });
    store.set({ prompt, ...(settings && { settings: { ...store.get("settings"), ...settings } }) });
    tellBoth(note);
  }

  at("load-json").addEventListener("click", () => attempt(() => {
    take({ plan: readPlan(parse(json.value)) }, "The plan was loaded.");
  }));
  at("copy-json").addEventListener("click", () => attempt(async () => {
    if (!json.value) throw new Error("There is no plan yet: press Plan, or draw a box.");
    await copy(json.value);
    tellBoth("The plan was copied.");
  }));
  at("share").addEventListener("click", () => attempt(async () => {
    const plan = { ...(store.get("plan") ?? emptyPlan("")), prompt: store.get("prompt") };
    const link = await toLink(plan, store.get("settings"), location.href);
    try {
      await copy(link);
      tellBoth("The link was copied; the whole plan is in it.");
    } catch {
      history.replaceState(null, "", link);
      tellBoth("The browser did not allow copying: the link is the address of this page now.");
    }
  }));
  at("open-file").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => {
    const [file] = at("file").files;
    at("file").value = "";
    if (file) openFile(file);
  });

  async function openFile(file) {
    await attempt(async () => {
      if (file.size > MOST_FILE_BYTES) throw new Error("This file is too large to be a picture of ours.");
      if (file.type === "application/json" || file.name.endsWith(".json")) {
        take({ plan: readPlan(parse(await file.text())) }, `The plan in ${file.name} was loaded.`);
        return;
      }
      const { notes, ...origin } = readOrigin(await file.arrayBuffer(), store.get("model"));
      store.recall({ id: file.name, createdAt: Date.now(), blob: file, ...origin });
      tellBoth([`${file.name} gave back its plan, seed and numbers.`, ...notes].join(" "));
    });
  }

  listenForDrops((file) => {
    const isJsonl = file.name.endsWith(".jsonl");
    if (isJsonl && location.hash === "#batch") batch.send(file);
    else if (isJsonl) tellBoth(`${file.name} holds many requests: drop it on the Batch page.`, { isBad: true });
    else {
      if (location.hash === "#batch") location.hash = "#paint";
      openFile(file);
    }
  });
  const readAddress = () => attempt(async () => {
    const { hash } = location;
    // what is edited from here on must not be lost to the link at a reload
    if (hash.startsWith("#plan=")) history.replaceState(null, "", "#paint");
    const found = await fromLink(hash);
    if (found) take(found, "The plan in the link was loaded.");
  });
  addEventListener("hashchange", readAddress);
  return readAddress();
}

async function attempt(act) {
  try {
    await act();
  } catch (error) {
    tellBoth(error.message, { isBad: true });
  }
}

/** Said where it was asked for, and where people look. */
function tellBoth(text, options = {}) {
  say(text, { ...options, id: "exchanged" });
  say(text, options);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${error.message}`, { cause: error });
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    throw new Error("The browser did not allow copying: copy the text by hand.", { cause: error });
  }
}

function listenForDrops(take) {
  const curtain = at("drop");
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    curtain.textContent =
      location.hash === "#batch" ? "Drop a JSONL file to paint what is in it" : "Drop a picture to get its plan back";
    curtain.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) curtain.hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    curtain.hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}
