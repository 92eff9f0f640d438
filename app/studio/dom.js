/** Elements without markup: every text goes in as text. */

/** The element with this id; ids are part of index.html. */
export const at = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag its name
 * @param {object} given properties; `on` holds listeners, `data` data attributes, names with a
 *   dash and `role` are attributes, anything else is a property such as textContent
 * @param {...(Node|string)} children what stands in it; strings stay text
 */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") for (const [kind, act] of Object.entries(value)) element.addEventListener(kind, act);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace what stands in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** Whether a key press belongs to a field that somebody types into. */
export function isTyping(event) {
  return event.target instanceof Element && event.target.matches("input, textarea, select");
}

/** Seconds as people read them. */
export function seconds(value) {
  if (!Number.isFinite(value)) return "";
  return value < 10 ? `${value.toFixed(2)} s` : `${Math.round(value)} s`;
}

/** A count of bytes as people read it. */
export function kilobytes(count) {
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** Wait, or stop waiting when the signal says so. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
