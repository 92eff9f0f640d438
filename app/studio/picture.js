/** The picture in the frame, and what is known of it. */

import { at, fill, kilobytes, make, seconds } from "./dom.js";
import { drawMasks } from "./masks.js";

const STAGES = { encode: "Words took", denoise: "Steps took", decode: "Pixels took" };

export function mountPicture(store) {
  let url = null; // of what is in the frame
  let finished = null; // of the last finished picture, which Download holds
  let isPreview = false;

  /** Show a blob in the frame, finished or not. */
  function show(blob, alt) {
    const before = url;
    url = URL.createObjectURL(blob);
    const image = at("picture");
    image.onload = () => before && before !== finished && URL.revokeObjectURL(before);
    image.src = url;
    image.alt = alt;
    image.hidden = false;
  }

  function showPreview(blob) {
    show(blob, `Preview: ${store.get("prompt")}`);
    isPreview = true;
    at("frame").classList.add("rests");
  }

  /** Show the picture that the page speaks of, and let Download have its address. */
  function showFinished(picture) {
    show(picture.blob, picture.prompt);
    if (finished) URL.revokeObjectURL(finished);
    finished = url;
    isPreview = false;
    at("download").href = finished;
  }

  /** After work that was cancelled or failed: no preview is left beside another picture's facts. */
  function dropPreview() {
    if (store.get("picture")) showFinished(store.get("picture"));
    else at("picture").hidden = true;
    isPreview = false;
  }

  store.listen((changed) => {
    const picture = store.get("picture");
    if (changed.has("picture") && picture) {
      showFinished(picture);
      at("frame").classList.add("rests");
      showFacts(picture);
    }
    if (changed.has("work") && store.get("work").phase === "idle" && isPreview) dropPreview();
    const isTouched = changed.has("plan") || (changed.has("selected") && store.get("selected") >= 0);
    if (isTouched && !changed.has("picture")) at("frame").classList.remove("rests");
    if (changed.has("plan") || changed.has("picture")) {
      at("empty").hidden = Boolean(store.get("plan") ?? picture);
    }
    if (changed.has("settings") || changed.has("model")) setAspect(store);
  });
  at("keep-seed").addEventListener("click", () => store.setting("seed", String(store.get("picture").facts.seed)));
  mountMasks(store);
  mountBoxes();
  return { showPreview };
}

function showFacts(picture) {
  const { facts } = picture;
  const link = at("download");
  link.download = `fewstroke-${facts.seed ?? "picture"}.${facts.output_format ?? "png"}`;
  const took = (value) => (value === undefined ? undefined : seconds(value));
  const rows = {
    Seed: facts.seed,
    Variant: facts.variant,
    Steps: facts.steps,
    Guidance: facts.guidance,
    Size: facts.size,
    Waited: took(facts.waited_s),
    ...Object.fromEntries(
      Object.entries(STAGES).map(([stage, name]) => [name, took(facts.timings_s?.[stage])]),
    ),
    "In all": took(facts.total_s),
    File: kilobytes(facts.bytes),
    Model: `${facts.model} ${facts.revision}`,
  };
  fill(
    at("facts"),
    ...Object.entries(rows)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))),
  );
  // a file may hold a seed that no browser can: there is nothing to go on from then
  for (const id of ["keep-seed", "compare", "more-seeds"]) at(id).hidden = facts.seed === undefined;
  fill(at("fallbacks"), ...(facts.fallbacks ?? []).map((text) => make("li", {}, text)));
  at("result").hidden = false;
}

function sizeOf(store) {
  const size = store.get("settings").size ?? store.get("model")?.sizes[0] ?? "1x1";
  const [width, height] = size.split("x").map(Number);
  return { width, height };
}

function setAspect(store) {
  const { width, height } = sizeOf(store);
  at("frame").style.setProperty("--aspect", `${width} / ${height}`);
}

function mountMasks(store) {
  const button = at("show-masks");
  const canvas = at("masks");
  const isOn = () => button.getAttribute("aria-pressed") === "true";

  async function draw() {
    const plan = store.get("plan");
    const server = store.get("server");
    canvas.hidden = !(isOn() && plan?.objects.length && server);
    if (isOn() && !plan?.objects.length) at("said").textContent = "There are no regions yet whose masks could be shown.";
    if (isOn() && !server) at("said").textContent = "The masks are shown when the server is back.";
    if (canvas.hidden) return;
    const share = store.get("settings").base_ratio;
    const baseShare = share === undefined ? server.base_ratio : Number(share);
    try {
      await drawMasks(canvas, plan, { ...sizeOf(store), tokenPx: server.token_px, baseShare });
    } catch (error) {
      canvas.hidden = true;
      at("said").textContent = error.message;
    }
  }

  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!isOn()));
    draw();
  });
  store.listen((changed) => {
    if (isOn() && ["plan", "settings", "server"].some((name) => changed.has(name))) draw();
  });
}

function mountBoxes() {
  const button = at("show-boxes");
  const frame = at("frame");
  // a finger cannot hover: it touches the picture to have the boxes back
  frame.addEventListener("pointerdown", () => frame.classList.remove("rests"));
  button.addEventListener("click", () => {
    if (frame.classList.contains("rests") && !frame.classList.contains("bare")) {
      frame.classList.remove("rests");
      return;
    }
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    frame.classList.toggle("bare", !isOn);
    frame.classList.remove("rests");
  });
}
