/** Pictures side by side: the same seed by several variants, or several seeds. */

import { at, fill, kilobytes, make, seconds } from "./dom.js";
import { bodyOf, paintOne } from "./paint.js";
import { say } from "./messages.js";

const LEVELS = ["low", "medium", "high"];

export function mountSets(store) {
  let urls = [];

  /** Open an empty set; `add` puts a card in it. */
  function openSet(title, note = "") {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    at("sets-title").textContent = title;
    at("sets-note").textContent = note;
    fill(at("cards"));
    at("sets").hidden = false;
    return { add: (text) => addCard(text) };
  }

  function addCard(text) {
    const image = make("img", { alt: "", hidden: true });
    const button = make("button", { type: "button", className: "picture", disabled: true, "aria-label": text }, image);
    const caption = make("p", {}, text);
    at("cards").append(make("li", { className: "card" }, button, caption));
    const show = (blob) => {
      const url = URL.createObjectURL(blob);
      urls.push(url);
      image.src = url;
      image.hidden = false;
    };
    return {
      show,
      say: (words) => (caption.textContent = words),
      finish(picture, words) {
        show(picture.blob);
        image.alt = `${words}: ${picture.prompt}`;
        caption.textContent = words;
        button.disabled = false;
        button.setAttribute("aria-label", `Show large: ${words}`);
        button.addEventListener("click", () => store.set({ picture }));
      },
    };
  }

  at("close-sets").addEventListener("click", () => (at("sets").hidden = true));
  return { openSet };
}

export function mountComparing(store, { busy, paint, openSet, onPicture }) {
  at("compare").addEventListener("click", () =>
    busy("painting", async (signal) => {
      const { seed } = store.get("picture").facts;
      const efforts = effortsOf(store.get("model"));
      const set = openSet("Side by side", `Seed ${seed}, the same plan; painted one after the other, so that times can be compared.`);
      const cards = efforts.map((effort) => set.add(`${effort.label}: waiting`));
      for (const [place, effort] of efforts.entries()) {
        const { variant, steps, bits, label } = effort;
        cards[place].say(`${label}: painting`);
        await paintOne(store, { ...bodyOf(store), seed, variant, steps, partial_images: 0 }, signal, {
          onPreview() {},
          async onPicture(_index, picture) {
            const { timings_s, own_s, bytes } = picture.facts;
            cards[place].finish(
              picture,
              `${label}: ${seconds(own_s)}, of it ${seconds(timings_s.denoise)} for steps; ${bits} bits a weight; file ${kilobytes(bytes)}`,
            );
            await onPicture(picture, { isMain: false });
          },
        });
      }
      say(`${efforts.length} pictures with seed ${seed}, side by side.`);
    }),
  );
  at("more-seeds").addEventListener("click", () => {
    const { seed } = store.get("picture").facts;
    paint({ n: 4, seed: seed + 1 });
  });
}

/** What is compared: every served variant in its own steps, and where that is one, its levels. */
export function effortsOf(model) {
  const own = Object.entries(model.served).map(([variant, card]) => ({ variant, steps: card.steps }));
  const levels = LEVELS.flatMap((level) => model.qualities[level] ?? []);
  const wanted = own.length > 1 ? own : [...own, ...levels];
  const known = new Set();
  return wanted
    .filter(({ variant, steps }) => !known.has(`${variant} ${steps}`) && known.add(`${variant} ${steps}`))
    .sort((a, b) => b.steps - a.steps)
    .map(({ variant, steps }) => ({
      variant,
      steps,
      bits: model.served[variant].bits,
      label: `${variant}, ${steps} ${steps === 1 ? "step" : "steps"}`,
    }));
}
