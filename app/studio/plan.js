/** A scene plan as data: made, checked, moved about. Nothing here touches the page. */

export const VERSION = 1;
export const LEAST_EDGE = 0.02;
export const MOST_DEPTH = 1000;
export const EDGES = ["x0", "y0", "x1", "y1"];
const TEXTS = ["content", "topic", "background", "details", "style", "negative"];

/** A plan of nothing but a sentence. */
export function emptyPlan(prompt) {
  const texts = Object.fromEntries(TEXTS.map((name) => [name, ""]));
  return { schema_version: VERSION, prompt, ...texts, objects: [], provenance: { planner: "user" } };
}

/** A region that somebody drew. */
export function newObject(box, z = 0) {
  return { name: "thing", high: "a thing", low: "", box: tidy(box), z, weight: 1, negative: "" };
}

/**
 * Read a plan that came from a file, a link or a text field.
 * @throws {Error} in words, where the page could not show it; the server checks the rest
 */
export function readPlan(data) {
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    throw new Error("A plan is a JSON object.");
  }
  if (data.schema_version !== VERSION) {
    throw new Error(`This plan has schema_version ${shown(data.schema_version)}; the studio reads ${VERSION}.`);
  }
  if (typeof data.prompt !== "string") throw new Error("The plan has no prompt.");
  const objects = data.objects ?? [];
  if (!Array.isArray(objects)) throw new Error("objects must be a list.");
  const plan = { ...emptyPlan(data.prompt), ...data, objects: objects.map(readObject) };
  for (const name of TEXTS) {
    if (typeof plan[name] !== "string") throw new Error(`${name} must be a text.`);
  }
  checkProvenance(plan.provenance);
  return plan;
}

function checkProvenance(data) {
  if (typeof data !== "object" || data === null) throw new Error("provenance must be an object.");
  for (const name of ["notes", "repairs"]) {
    if (!Array.isArray(data[name] ?? [])) throw new Error(`provenance.${name} must be a list.`);
  }
  for (const name of ["planner", "model", "fallback"]) {
    if (typeof (data[name] ?? "") !== "string") throw new Error(`provenance.${name} must be a text.`);
  }
}

function readObject(data, place) {
  const path = `objects[${place}]`;
  if (typeof data !== "object" || data === null) throw new Error(`${path} must be an object.`);
  const thing = { low: "", z: 0, weight: 1, negative: "", ...data };
  for (const name of ["name", "high", "low", "negative"]) {
    if (typeof thing[name] !== "string") throw new Error(`${path}.${name} must be a text.`);
  }
  for (const name of ["z", "weight"]) {
    if (!Number.isFinite(thing[name])) throw new Error(`${path}.${name} must be a number.`);
  }
  if (typeof thing.mask === "string") {
    if (!isBase64(thing.mask)) throw new Error(`${path}.mask is no picture in base64.`);
    return thing;
  }
  const { box } = thing;
  if (!box || !EDGES.every((edge) => Number.isFinite(box[edge]) && box[edge] >= 0 && box[edge] <= 1)) {
    throw new Error(`${path}.box needs x0, y0, x1 and y1 between 0 and 1.`);
  }
  if (box.x0 >= box.x1 || box.y0 >= box.y1) throw new Error(`${path}.box is inverted or empty.`);
  return thing;
}

function isBase64(text) {
  try {
    return atob(text).length > 0;
  } catch {
    return false;
  }
}

/** Move a box as a whole, as far as the picture reaches. */
export function moved(box, dx, dy) {
  const x = clamp(dx, -box.x0, 1 - box.x1);
  const y = clamp(dy, -box.y0, 1 - box.y1);
  return tidy({ x0: box.x0 + x, y0: box.y0 + y, x1: box.x1 + x, y1: box.y1 + y });
}

/** Move the lower right corner of a box. */
export function resized(box, dx, dy) {
  return tidy({ ...box, x1: box.x1 + dx, y1: box.y1 + dy });
}

/** A box that lies on the picture, is no smaller than can be grasped, and has short numbers. */
export function tidy(box) {
  const x0 = clamp(Math.min(box.x0, box.x1), 0, 1 - LEAST_EDGE);
  const y0 = clamp(Math.min(box.y0, box.y1), 0, 1 - LEAST_EDGE);
  const x1 = clamp(Math.max(box.x0, box.x1), x0 + LEAST_EDGE, 1);
  const y1 = clamp(Math.max(box.y0, box.y1), y0 + LEAST_EDGE, 1);
  return { x0: short(x0), y0: short(y0), x1: short(x1), y1: short(y1) };
}

/** A copy that stands a little aside, in front of the other. */
export function duplicated(thing) {
  const copy = structuredClone(thing);
  if (copy.box) {
    const dx = copy.box.x1 + 0.05 <= 1 ? 0.05 : -0.05;
    const dy = copy.box.y1 + 0.05 <= 1 ? 0.05 : -0.05;
    copy.box = moved(copy.box, dx, dy);
  }
  copy.z = Math.min(copy.z + 1, MOST_DEPTH);
  return copy;
}

/** Where a region is, in words. */
export function placeOf(thing) {
  if (!thing.box) return "any shape, by a mask";
  const { x0, y0, x1, y1 } = thing.box;
  return `left ${percent(x0)}, top ${percent(y0)}, ${percent(x1 - x0)} wide, ${percent(y1 - y0)} high`;
}

/** The hue of a region, in degrees: far from those of its neighbours in the list. */
export function hueOf(index) {
  return (index * 137.5 + 20) % 360;
}

/** The order in which regions are drawn: the front comes last. */
export function fromBackToFront(objects) {
  return objects.map((_, index) => index).sort((a, b) => objects[a].z - objects[b].z || a - b);
}

/** The order in which people read regions: the front comes first, equals as in the plan. */
export function fromFrontToBack(objects) {
  return objects.map((_, index) => index).sort((a, b) => objects[b].z - objects[a].z || a - b);
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function short(value) {
  return Math.round(value * 10_000) / 10_000;
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}

function shown(value) {
  return JSON.stringify(value) ?? "none";
}
