// Answers while they are written: one for each dialog at most, whichever dialog is shown.

import { stream } from "./api.js";
import { chatFields, requestFields, words } from "./choices.js";
import { contentOf } from "./store.js";

const TOO_LONG = "context_length_exceeded";
const BURST = 50; // ms after the first piece
const FEW = 16; // pieces that are too few to tell a pace

/** One answer that is being written. */
class Run {
  constructor(dialog, message, leftOut) {
    this.leftOut = leftOut; // messages at the beginning that do not fit the context
    this.dialog = dialog;
    this.message = message;
    this.version = { content: "", note: {} };
    this.controller = new AbortController();
    this.asked = performance.now();
    this.began = this.settled = this.latest = 0;
    this.pieces = this.early = 0;
  }

  /** Take in one event of the stream. */
  add(event) {
    const [choice] = event.choices;
    if (choice?.delta.content) {
      this.latest = performance.now();
      this.began ||= this.latest;
      this.pieces += 1;
      if (this.latest - this.began < BURST) {
        this.early = this.pieces;
        this.settled = this.latest;
      }
      this.version.content += choice.delta.content;
    }
    if (choice?.finish_reason) this.version.note.finish = choice.finish_reason;
    if (event.usage) {
      this.version.note.tokens = event.usage.completion_tokens;
      this.version.note.context = event.usage.total_tokens;
    }
  }

  /**
   * Tokens a second; until the server has counted, by pieces.
   *
   * A page that was busy gets many pieces at once, so those that come with the first one say
   * nothing of the pace. An answer that is over soon is measured from the request on.
   */
  rate() {
    if (!this.pieces) return null;
    const tokens = (this.version.note.tokens ?? this.pieces) / this.pieces; // of a piece
    const late = this.pieces - this.early;
    if (late >= FEW) return (late * tokens * 1000) / (this.latest - this.settled);
    return (this.pieces * tokens * 1000) / (this.latest - this.asked);
  }
}

/**
 * Writes answers.
 * @param {Settings} settings
 * @param {{begun: function(Run), grown: function(Run), ended: function(Run, ?Error)}} tell
 */
export class Answers {
  constructor(settings, tell) {
    this.settings = settings;
    this.tell = tell;
    this.runs = new Set();
  }

  /** Return the run of a dialog, if there is one. */
  of(dialog) {
    return [...this.runs].find((run) => run.dialog.id === dialog?.id);
  }

  /** End the answer of a dialog; what there is of it stays. Returns when it has ended. */
  async stop(dialog) {
    const run = this.of(dialog);
    run?.controller.abort();
    await run?.written;
  }

  /**
   * Write an answer to a dialog that ends with a question, or another version of its last answer.
   */
  write(dialog) {
    if (this.of(dialog)) return;
    const last = dialog.messages.at(-1);
    const isNew = last.role === "user";
    const message = isNew ? { role: "assistant", versions: [], shown: 0 } : last;
    const leftOut = this.leftOutBefore(dialog);
    if (isNew) dialog.messages.push(message);
    const run = new Run(dialog, message, leftOut);
    const before = message.shown;
    run.version.note.about = words(this.settings.choices);
    message.shown = message.versions.push(run.version) - 1;
    this.runs.add(run);
    this.tell.begun(run);
    run.written = this.follow(run).then((failed) => {
      this.runs.delete(run);
      if (!run.version.content && !run.version.note.finish) {
        message.versions.pop();
        message.shown = before;
        if (isNew) dialog.messages.pop();
      }
      this.tell.ended(run, failed);
    });
  }

  /**
   * Return whether what was refused may succeed now: a request that would be the same one and has
   * something wrong with it cannot.
   */
  mayRetry(dialog, error) {
    if (error.isPassing) return true;
    const request = this.request(dialog.system, dialog.messages, error.leftOut);
    return error.request !== decisive(request, error);
  }

  request(system, messages, leftOut) {
    const { choices } = this.settings;
    return {
      messages: outgoing(system, messages.slice(leftOut)),
      stream_options: { include_usage: true },
      ...requestFields(choices),
      ...chatFields(choices),
    };
  }

  /** Return how many messages did not fit the context when the answer before was written. */
  leftOutBefore(dialog) {
    const answer = dialog.messages.findLast(({ role }) => role === "assistant");
    const note = answer?.versions[answer.shown]?.note;
    return note?.room === this.settings.description.context ? (note.leftOut ?? 0) : 0;
  }

  /**
   * Have an answer written; what does not fit the context is left out of the request, exchange by
   * exchange, and stays in the dialog. Returns what went wrong, or null.
   */
  async follow(run) {
    const messages = run.dialog.messages.slice(0, -1);
    for (;;) {
      const request = this.request(run.dialog.system, messages, run.leftOut);
      const failed = await this.read(run, request);
      const next = messages.findIndex((it, at) => it.role === "user" && at > run.leftOut);
      if (failed?.code === TOO_LONG && next > 0 && !run.version.content) {
        run.leftOut = next;
        continue;
      }
      if (failed) Object.assign(failed, { leftOut: run.leftOut, request: decisive(request, failed) });
      return failed;
    }
  }

  /** Read a stream to its end. Returns what went wrong, or null. */
  async read(run, body) {
    const { signal } = run.controller;
    let failed = null;
    try {
      for await (const event of stream("v1/chat/completions", body, signal)) {
        run.add(event);
        this.tell.grown(run);
      }
    } catch (error) {
      if (!signal.aborted) failed = error;
      const ending = error.status === 0 ? "lost" : "failed"; // 0: the server said nothing
      if (run.version.content) run.version.note.finish = signal.aborted ? "stopped" : ending;
    }
    run.version.note.tokens ??= run.pieces;
    if (run.leftOut) {
      Object.assign(run.version.note, {
        leftOut: run.leftOut,
        room: this.settings.description.context,
      });
    }
    const rate = run.rate();
    if (rate !== null) run.version.note.rate = rate;
    return failed;
  }
}

/** Return, as JSON, what of a request decides whether it is refused once more. */
function decisive({ messages, prompt_format, ...rest }, { code }) {
  return JSON.stringify([messages, prompt_format, code === TOO_LONG ? null : rest]);
}

/** Return the messages as the server wants them: questions that follow one another are one. */
function outgoing(system, messages) {
  const found = system.trim() ? [{ role: "system", content: system }] : [];
  for (const message of messages) {
    const { role } = message;
    const content = contentOf(message);
    const last = found.at(-1);
    if (role === "user" && last?.role === "user") last.content += `\n\n${content}`;
    else found.push({ role, content });
  }
  return found;
}
