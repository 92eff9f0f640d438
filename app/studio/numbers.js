/** Numbers that people type: taken when they are finished, refused in words, never half of them. */

import { nameOf, refuse } from "./messages.js";

/**
 * Take what stands in a number field, or put back what stood there and say why.
 * @param {HTMLInputElement} input its limits are those of its attributes; `inputmode="numeric"`
 *   asks for whole numbers
 * @param {string} before what stood there
 * @param {(text: string) => void} accept takes it; empty where the field may be
 */
export function takeNumber(input, before, accept) {
  const isMissing = input.value === "" && input.required;
  if (!isMissing && !isWrong(input)) {
    accept(input.value);
    return;
  }
  input.value = before;
  refuse(input, `${nameOf(input)} takes ${rangeOf(input)}. It stays ${before || "as the server has it"}.`);
}

function isWrong(input) {
  const { badInput, rangeUnderflow, rangeOverflow } = input.validity;
  const isBroken = isWhole(input) && !Number.isInteger(Number(input.value));
  return badInput || rangeUnderflow || rangeOverflow || isBroken;
}

function rangeOf(input) {
  const kind = isWhole(input) ? "whole numbers" : "numbers";
  return input.max ? `${kind} from ${input.min} to ${input.max}` : `${kind} from ${input.min} on`;
}

function isWhole(input) {
  return input.inputMode === "numeric";
}
