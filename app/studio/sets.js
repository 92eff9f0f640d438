/** Pictures side by side: the same seed by several variants, or several seeds. */

import { at, fill, kilobytes, make, seconds } from "./dom.js";
import { paintOne } from "./paint.js";
import { say } from "./messages.js";

const LEVELS = ["low", "medium", "high"];
const MORE_SEEDS = 4;

export function mountSets(store) {
  let urls = [];
  let open = new Set(); // cards that wait for a picture

  /** Open an empty set; `add` puts a card in it. */
  function openSet(title, note = "") {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    open = new Set();
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
    const card = {
      show,
      say: (words) => (caption.textContent = words),
      finish(picture, words) {
        open.delete(card);
        show(picture.blob);
        image.alt = `${words}: ${picture.prompt}`;
        caption.textContent = words;
        button.disabled = false;
        button.setAttribute("aria-label", `Show large: ${words}`);
        button.addEventListener("click", () => store.set({ picture }));
      },
    };
    open.add(card);
    return card;
  }

  at("close-sets").addEventListener("click", () => {
    at("sets").hidden = true;
    at("compare").focus();
  });
  store.listen((changed) => {
    if (!changed.has("work") || store.get("work").phase !== "idle") return;
    for (const card of open) card.say("Not painted.");
    open.clear();
  });
  return { openSet };
}

export function mountComparing(store, { busy, paintSeeds, openSet, onPicture }) {
  at("compare").addEventListener("click", () =>
    busy("painting", async (signal) => {
      const picture = store.get("picture");
      const { seed } = picture.facts;
      // guidance is left out: each variant has its own, and few-step variants learned to do without
      const { size, base_ratio } = picture.settings ?? {};
      const efforts = effortsOf(store.get("model"));
      const set = openSet("Side by side", `Seed ${seed}, the same plan; painted one after the other, so that times can be compared.`);
      const cards = efforts.map((effort) => set.add(`${effort.label}: waiting`));
      for (const [place, effort] of efforts.entries()) {
        const { variant, steps, bits, label } = effort;
        cards[place].say(`${label}: painting`);
        const settings = { ...(size && { size }), ...(base_ratio && { base_ratio }), seed: String(seed), variant, steps: String(steps) };
        await paintOne(store, { ...picture, settings }, signal, {
          changes: { partial_images: 0 },
          onPreview() {},
          async onPicture(_index, painted) {
            const { timings_s, own_s, bytes } = painted.facts;
            cards[place].finish(
              painted,
              `${label}: ${seconds(own_s)}, of it ${seconds(timings_s.denoise)} for steps; ${bits} bits a weight; file ${kilobytes(bytes)}`,
            );
            await onPicture(painted, { isMain: false });
          },
        });
      }
      say(`${efforts.length} pictures with seed ${seed}, side by side.`);
    }),
  );
  at("more-seeds").addEventListener("click", () =>
    busy("painting", async (signal) => {
      const picture = store.get("picture");
      const { seed, variant } = picture.facts;
      const settings = { ...picture.settings, ...(variant && { variant }), seed: String(seed + 1) };
      await paintSeeds({ ...picture, settings }, MORE_SEEDS, signal);
    }),
  );
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
