// Talking with the server, and turning what goes wrong into sentences.

const KEY = "llamakit.key";
const GONE = "The server does not answer. Is llamakit serve still running?";
const INTERRUPTED = "The connection to the server ended within the answer.";

let key = sessionKey();

function sessionKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** Whether requests carry a key. */
export function hasKey() {
  return key !== "";
}

/** Use a key from now on. It is kept until the tab is closed, and never longer. */
export function setKey(given) {
  key = given.trim();
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // a browser that keeps nothing: it lasts until the page is loaded again
  }
}

/** What the server answers when it does not do what it is asked; the message is a sentence. */
class ApiError extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

/** Ask for something that the server describes. */
export async function get(path) {
  return (await send(path, { headers: headers() })).json();
}

/**
 * Ask for an answer as it is written.
 * @yields {object} the events of the stream.
 */
export async function* stream(path, body, signal) {
  const response = await send(path, asked({ ...body, stream: true }, signal));
  let rest = "";
  try {
    for await (const text of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
      const events = (rest + text).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: ?/, "");
        if (data === "[DONE]") return;
        const value = JSON.parse(data);
        if (value.error) throw new ApiError(sentence(value.error.message));
        yield value;
      }
    }
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(INTERRUPTED);
  }
  throw new ApiError(INTERRUPTED);
}

// Not every browser can walk through a stream with "for await".
async function* chunks(readable) {
  const reader = readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function asked(body, signal) {
  return {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  };
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(GONE);
  }
  if (response.ok) return response;
  throw new ApiError(await explain(response), response.status);
}

async function explain(response) {
  if (response.status === 401) {
    return key ? "The server does not accept this API key." : "The server asks for an API key.";
  }
  let message = `The server answers with the status ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // no words came with it
  }
  const wait = response.headers.get("Retry-After");
  return sentence(message) + (wait ? ` Try again in ${wait} s.` : "");
}

function sentence(message) {
  const text = message.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…)]$/.test(text) ? "" : ".");
}
