// Answers while they are written: one for each dialog at most, whichever dialog is shown.

import { stream } from "./api.js";
import { chatFields, requestFields, words } from "./choices.js";
import { contentOf } from "./store.js";

const BURST = 50; // ms after the first piece
const FEW = 16; // pieces that are too few to tell a pace

/** One answer that is being written. */
class Run {
  constructor(dialog, message) {
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
    this.runs = new Map();
  }

  /** Return the run of a dialog, if there is one. */
  of(dialog) {
    return this.runs.get(dialog?.id);
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
    if (isNew) dialog.messages.push(message);
    const run = new Run(dialog, message);
    const { choices } = this.settings;
    const before = message.shown;
    run.version.note.about = words(choices);
    message.shown = message.versions.push(run.version) - 1;
    this.runs.set(dialog.id, run);
    this.tell.begun(run);
    const body = {
      messages: outgoing(dialog),
      stream_options: { include_usage: true },
      ...requestFields(choices),
      ...chatFields(choices),
    };
    run.written = this.follow(run, body).then((failed) => {
      this.runs.delete(dialog.id);
      if (!run.version.content && !run.version.note.finish) {
        message.versions.pop();
        message.shown = before;
        if (isNew) dialog.messages.pop();
      }
      this.tell.ended(run, failed);
    });
  }

  /** Read a stream to its end. Returns what went wrong, or null. */
  async follow(run, body) {
    const { signal } = run.controller;
    let failed = null;
    try {
      for await (const event of stream("v1/chat/completions", body, signal)) {
        run.add(event);
        this.tell.grown(run);
      }
    } catch (error) {
      if (!signal.aborted) failed = error;
      if (run.version.content) run.version.note.finish = signal.aborted ? "stopped" : "failed";
    }
    run.version.note.tokens ??= run.pieces;
    const rate = run.rate();
    if (rate !== null) run.version.note.rate = rate;
    return failed;
  }
}

/** Return the messages as the server wants them: questions that follow one another are one. */
function outgoing(dialog) {
  const found = dialog.system.trim() ? [{ role: "system", content: dialog.system }] : [];
  for (const message of dialog.messages.slice(0, -1)) {
    const { role } = message;
    const content = contentOf(message);
    const last = found.at(-1);
    if (role === "user" && last?.role === "user") last.content += `\n\n${content}`;
    else found.push({ role, content });
  }
  return found;
}
