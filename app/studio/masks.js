/**
 * Who hears what, and how much, on every token of the picture: what the server does, drawn.
 *
 * The same arithmetic as pipelines/regions.py: a region covers a token by area, what is in front
 * hides what is behind, equals share, and the whole sentence gets what is left.
 */

import { hueOf } from "./plan.js";

/**
 * Weigh regions on a grid of tokens.
 * @param {Array<{z: number, weight: number, cover: Float64Array}>} regions
 * @param {number} baseShare how much of a region still hears the whole sentence, 0..1
 * @returns {Float64Array[]} one array per region, 0..1 on each token
 */
export function weigh(regions, baseShare) {
  const num = regions[0]?.cover.length ?? 0;
  const shares = regions.map(() => new Float64Array(num));
  const visible = new Float64Array(num).fill(1);
  const depths = [...new Set(regions.map((region) => region.z))].sort((a, b) => b - a);
  for (const z of depths) {
    const rows = regions.flatMap((region, row) => (region.z === z ? [row] : []));
    for (let token = 0; token < num; token += 1) {
      const crowd = rows.reduce((sum, row) => sum + regions[row].cover[token], 0);
      for (const row of rows) {
        shares[row][token] = (visible[token] * regions[row].cover[token]) / Math.max(crowd, 1);
      }
      visible[token] *= 1 - Math.min(crowd, 1);
    }
  }
  return shares.map((_, row) =>
    Float64Array.from({ length: num }, (_unused, token) => heard(regions, shares, row, token, baseShare)),
  );
}

function heard(regions, shares, row, token, baseShare) {
  let covered = 0;
  let loud = 0;
  for (let other = 0; other < regions.length; other += 1) {
    covered += shares[other][token];
    loud += (1 - baseShare) * regions[other].weight * shares[other][token];
  }
  const total = loud + baseShare * covered;
  if (total <= 0) return 0;
  return ((1 - baseShare) * regions[row].weight * shares[row][token] * covered) / total;
}

/** How much of each token a box covers. */
export function coverOf(box, columns, rows) {
  const cover = new Float64Array(columns * rows);
  for (let y = 0; y < rows; y += 1) {
    const high = overlap(box.y0, box.y1, y, rows);
    for (let x = 0; x < columns; x += 1) cover[y * columns + x] = high * overlap(box.x0, box.x1, x, columns);
  }
  return cover;
}

function overlap(low, high, cell, num) {
  return Math.max(0, Math.min(cell + 1, high * num) - Math.max(cell, low * num));
}

/** How much of each token a mask covers, a PNG in base64. */
export async function coverOfMask(mask, columns, rows) {
  const bytes = Uint8Array.from(atob(mask), (char) => char.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" })).catch(() => {
    throw new Error("The mask of a region is no picture that can be read: Paint says which.");
  });
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, columns, rows);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, columns, rows);
  const pixels = context.getImageData(0, 0, columns, rows).data;
  const grey = (place) => 0.299 * pixels[place] + 0.587 * pixels[place + 1] + 0.114 * pixels[place + 2];
  return Float64Array.from({ length: columns * rows }, (_, token) => grey(token * 4) / 255);
}

/**
 * Draw the weights of a plan: each token in the hues of those that it hears.
 * @param {HTMLCanvasElement} canvas becomes as small as the grid; the style sheet enlarges it
 */
export async function drawMasks(canvas, plan, { width, height, tokenPx, baseShare }) {
  const columns = Math.floor(width / tokenPx);
  const rows = Math.floor(height / tokenPx);
  const regions = await Promise.all(
    plan.objects.map(async ({ z, weight, box, mask }) => {
      const cover = box ? coverOf(box, columns, rows) : await coverOfMask(mask, columns, rows);
      return { z, weight, cover };
    }),
  );
  const weights = weigh(regions, baseShare);
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, columns, rows);
  for (let token = 0; token < columns * rows; token += 1) {
    weights.forEach((heardBy, row) => {
      context.fillStyle = `hsl(${hueOf(row)} 85% 50% / ${0.7 * heardBy[token]})`;
      context.fillRect(token % columns, Math.floor(token / columns), 1, 1);
    });
  }
}
