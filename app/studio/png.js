/** What Fewstroke wrote into a PNG, read in the browser. */

import { emptyPlan, readPlan } from "./plan.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const KEYWORD = "fewstroke";

/**
 * Read how a picture was made.
 * @param {ArrayBuffer} buffer a file
 * @param {object|null} model what is served, to find the variant that painted it
 * @returns {{prompt: string, plan: object, settings: object, facts: object, notes: string[]}} what
 *   it takes to paint it again, what is known of it, and what cannot be had again
 * @throws {Error} in words, if it is no PNG or carries nothing of ours
 */
export function readOrigin(buffer, model) {
  const text = findText(new DataView(buffer), KEYWORD);
  if (text === null) {
    throw new Error(
      "This PNG carries no plan: it was painted elsewhere, or saved again by a program that drops such texts.",
    );
  }
  const record = JSON.parse(text);
  const prompt = String(record.prompt ?? "");
  const variant = variantOf(record.revision, model);
  const facts = {
    // a seed that JavaScript cannot hold exactly would be another seed
    seed: Number.isSafeInteger(record.seed) ? record.seed : undefined,
    variant,
    steps: record.num_steps,
    guidance: record.guidance_scale,
    size: `${record.width}x${record.height}`,
    model: record.model,
    revision: record.revision,
    output_format: "png",
    bytes: buffer.byteLength,
  };
  const notes = [];
  if (facts.seed === undefined) notes.push("Its seed is too large for a browser.");
  if (variant === undefined) {
    notes.push(`It was painted by ${record.model} ${record.revision}, which is not served here: painted again it comes out otherwise.`);
  }
  return { prompt, plan: planOf(record, prompt), settings: settingsOf(record, facts, model), facts, notes };
}

function variantOf(revision, model) {
  return Object.entries(model?.served ?? {}).find(([, card]) => card.revision === revision)?.[0];
}

function settingsOf({ num_steps, guidance_scale, base_share }, { size }, model) {
  const numbers = { steps: num_steps, guidance: guidance_scale, base_ratio: base_share };
  const known = Object.entries(numbers).filter(([, value]) => Number.isFinite(value));
  const settings = Object.fromEntries(known.map(([name, value]) => [name, String(value)]));
  if (model?.sizes.includes(size)) settings.size = size;
  return settings;
}

function planOf(record, prompt) {
  if (record.plan) {
    return readPlan(typeof record.plan === "string" ? JSON.parse(record.plan) : record.plan);
  }
  const plan = emptyPlan(prompt);
  plan.negative = String(record.negative_prompt ?? "");
  plan.objects = (record.regions ?? []).map((region) => regionOf(region));
  return plan.objects.length ? readPlan(plan) : plan;
}

function regionOf(region) {
  const { high, low = "", z = 0, weight = 1, negative = "" } = region;
  const words = { name: String(high).slice(0, 80), high, low, z, weight, negative };
  if (!region.box) return { ...words, mask: region.mask };
  const [x0, y0, x1, y1] = region.box;
  return { ...words, box: { x0, y0, x1, y1 } };
}

/** Find the text of a keyword; null if there is none. */
export function findText(view, keyword) {
  if (view.byteLength < 8 || !SIGNATURE.every((byte, place) => view.getUint8(place) === byte)) {
    throw new Error("This is no PNG file.");
  }
  let place = 8;
  while (place + 12 <= view.byteLength) {
    const length = view.getUint32(place);
    const kind = ascii(view, place + 4, 4);
    const start = place + 8;
    if (start + length + 4 > view.byteLength) break;
    if (kind === "tEXt" && ascii(view, start, keyword.length + 1) === `${keyword}\0`) {
      const skip = keyword.length + 1;
      return ascii(view, start + skip, length - skip);
    }
    place = start + length + 4;
  }
  return null;
}

function ascii(view, start, length) {
  const end = Math.min(start + length, view.byteLength);
  return new TextDecoder("latin1").decode(new Uint8Array(view.buffer, view.byteOffset + start, end - start));
}
