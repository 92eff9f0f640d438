/** The server: JSON, streams of events, and every failure in words. */

const ROOT = new URL("../", document.baseURI);
const KEY = "fewstroke.key";

/** Why a request failed, in the server's words where it had any. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = "unreachable", param = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfterS });
  }
}

/** The API key, kept as long as the tab is open. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/**
 * Ask and wait for the answer.
 * @param {string} path below the server's root, as in "v1/plans"
 * @param {{method?: string, body?: object|FormData, signal?: AbortSignal}} options
 * @returns {Promise<Response>} an answer that is a success
 */
export async function request(path, { method, body, signal } = {}) {
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  const isForm = body instanceof FormData;
  if (body && !isForm) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method: method ?? (body ? "POST" : "GET"),
      headers,
      body: body && !isForm ? JSON.stringify(body) : body,
      signal,
      credentials: "omit",
    });
  } catch (error) {
    throw unreachable(error);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Ask and wait for a JSON object. */
export async function call(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw unreachable(error);
  }
}

/**
 * Ask for a stream.
 * @returns {AsyncGenerator<{name: string, data: object}>} its events; a comment such as
 *   `: queued {...}` is an event as well, named by its first word
 */
export async function* stream(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event?.name === "error") throw told(event.data, response);
        if (event) yield event;
      }
    }
  } catch (error) {
    throw error instanceof ServerError ? error : unreachable(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Read one block of a stream; null for what says nothing. */
export function parseEvent(block) {
  const event = { name: "message", data: {} };
  let text = "";
  for (const line of block.split("\n")) {
    const comment = /^: (\w+) (\{.*\})$/.exec(line);
    if (comment) return { name: comment[1], data: JSON.parse(comment[2]) };
    if (line.startsWith("event:")) event.name = line.slice(6).trim();
    if (line.startsWith("data:")) text += line.slice(5).trim();
  }
  if (!text) return null;
  event.data = JSON.parse(text);
  return event;
}

function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new ServerError(
    "The connection to the server was lost. If it was restarted, try again in a moment; what you " +
      "had planned is still here.",
  );
}

async function refusal(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // a proxy in between may answer without our envelope
  }
  return told(body, response);
}

function told(body, response) {
  const { message, code, param } = body.error ?? {};
  const retryAfter = Number(response.headers.get("Retry-After"));
  return new ServerError(message ?? `The server answered with status ${response.status}.`, {
    status: response.status,
    code: code ?? "unknown",
    param,
    retryAfterS: retryAfter > 0 ? retryAfter : null,
  });
}
