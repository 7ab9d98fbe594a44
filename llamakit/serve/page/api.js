// Talking with the server, and turning what goes wrong into sentences.

const KEY = "llamakit.key";
const GONE = "The server does not answer. Is llamakit serve still running?";
const INTERRUPTED = "The connection to the server was lost during the answer.";
const STATUSES = { invalid_request_error: 400, timeout_error: 408, rate_limit_error: 429 };

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

/**
 * What the server answers when it does not do what it is asked; the message is a sentence.
 *
 * `status` is 0 where it did not answer, `code` is a word for programs, and `until` is the time in
 * milliseconds before which it will not do it.
 */
class ApiError extends Error {
  constructor(sentence, { status = 0, code = null, param = null, wait = 0 } = {}) {
    super(sentence);
    Object.assign(this, { status, code, param, until: Date.now() + wait * 1000 });
  }

  /** Whether the same request may succeed later: neither it nor a plugin is what is wrong. */
  get isPassing() {
    const isUnknown = this.status === 500 && [null, "internal_error"].includes(this.code);
    return [0, 408, 429].includes(this.status) || this.status > 500 || isUnknown;
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
        if (value.error) throw within(value.error);
        yield value;
      }
    }
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(INTERRUPTED);
  }
  throw new ApiError(INTERRUPTED);
}

// An answer that has begun has the status 200: what its error would have been is in its type.
function within({ message, type, code, param }) {
  const status = STATUSES[type] ?? 500;
  return new ApiError(sentence(message), { status, code, param });
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
  throw await refusal(response);
}

async function refusal(response) {
  const { status } = response;
  if (status === 401) {
    const words = key ? "does not accept this API key" : "requires an API key";
    return new ApiError(`The server ${words}.`, { status });
  }
  let error = {
    message: `The server answers with the status ${status} and no reason: look into its log, or a proxy's`,
  };
  try {
    error = (await response.json()).error ?? error;
  } catch {
    // no words came with it
  }
  const wait = Number(response.headers.get("Retry-After")) || 0;
  const words = sentence(String(error.message)) + (wait ? ` Try again in ${wait} s.` : "");
  return new ApiError(words, { status, code: error.code, param: error.param, wait });
}

function sentence(message) {
  const text = message.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…)]$/.test(text) ? "" : ".");
}
