/** A plan as part of an address: what stands behind # is never sent to a server. */

import { readPlan } from "./plan.js";

const MOST_CHARS = 30_000;
const MOST_BYTES = 1_000_000;

/** Write a plan and its settings into an address. */
export async function toLink(plan, settings, address) {
  const text = new Blob([JSON.stringify({ plan, settings })]).stream();
  const packed = await new Response(text.pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer();
  const binary = Array.from(new Uint8Array(packed), (byte) => String.fromCharCode(byte)).join("");
  const code = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  if (code.length > MOST_CHARS) {
    throw new Error("This plan is too large for a link, most likely for a mask in it: copy its JSON.");
  }
  const url = new URL(address);
  url.hash = `plan=${code}`;
  return url.href;
}

/**
 * Read what `toLink` wrote.
 * @param {string} hash the part of an address from # on
 * @returns {Promise<{plan: object, settings: object}|null>} null if it holds no plan
 */
export async function fromLink(hash) {
  if (!hash.startsWith("#plan=")) return null;
  const code = hash.slice("#plan=".length);
  try {
    if (!/^[\w-]+$/.test(code)) throw new Error("it was cut off or changed on its way.");
    const binary = atob(code.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const text = await inflate(bytes);
    const { plan, settings } = JSON.parse(text);
    return { plan: readPlan(plan), settings: plainSettings(settings) };
  } catch (error) {
    throw new Error(`The plan in this link cannot be read: ${error.message}`, { cause: error });
  }
}

async function inflate(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const chunks = [];
  let total = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(chunks).text();
    total += value.length;
    if (total > MOST_BYTES) throw new Error("it is too large.");
    chunks.push(value);
  }
}

function plainSettings(settings) {
  const entries = Object.entries(settings ?? {});
  return Object.fromEntries(entries.filter(([, value]) => typeof value === "string"));
}
