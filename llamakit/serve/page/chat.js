// The chat: one dialog as it is shown, and what a person does to it.

import { Answers } from "./answers.js";
import { Composer } from "./composer.js";
import { announce, at, notify } from "./dom.js";
import { offerExamples } from "./examples.js";
import { editor, fillRunning, messageElement } from "./messages.js";
import { isAtEnd, toEnd } from "./scroller.js";
import { contentOf, hasUnsaved, keep, load, newDialog, remove, save, titleOf } from "./store.js";
import { clearOffer, offerAnswer, sayTrouble } from "./trouble.js";

const SAVING = 1000; // ms between saves of an answer that is being written

export class Chat {
  /**
   * @param {Settings} settings
   * @param {{changed: function(), refused: function()}} tell a dialog was kept or forgotten; the
   *     server does not accept the key.
   */
  constructor(settings, tell) {
    this.tell = tell;
    this.model = settings.description.model;
    this.dialog = null;
    this.errors = new Map();
    this.waiting = new Set();
    this.saved = new WeakMap(); // when a run was saved last
    this.gone = new Set();
    this.answers = new Answers(settings, {
      begun: (run) => this.refresh(run.dialog),
      grown: (run) => this.grow(run),
      ended: (run, failed) => this.end(run, failed),
    });
    settings.changed = () => this.drawOffer();
    this.composer = new Composer({
      send: (text) => this.send(text),
      edit: () => this.editLatest(),
      stop: () => this.stop(),
    });
    offerExamples(this.model, (text) => this.send(text));
    this.listen();
  }

  listen() {
    at("system").addEventListener("input", () => {
      this.dialog.system = at("system").value;
      this.hasNewSystem = true;
      this.markSystem();
      this.drawOffer();
    });
    at("system").addEventListener("change", () => this.keepSystem());
    window.addEventListener("pagehide", () => {
      this.keepSystem();
      for (const run of this.answers.runs) this.keepRun(run);
    });
    window.addEventListener("beforeunload", (event) => {
      if (hasUnsaved()) event.preventDefault();
    });
  }

  /** Show a dialog. */
  open(dialog) {
    this.replace(dialog);
    toEnd();
  }

  /** Show a dialog, or another state of the shown one, without scrolling. */
  replace(dialog) {
    this.keepSystem(); // of the dialog before
    this.dialog = this.answers.of(dialog)?.dialog ?? dialog;
    at("system").value = this.dialog.system;
    this.markSystem();
    keep("open", this.dialog.id);
    this.draw();
  }

  /** Return a dialog as it is here: one that is answered or shown, else as it is stored. */
  current(dialog) {
    const shown = this.dialog.id === dialog.id ? this.dialog : load(dialog.id);
    return this.answers.of(dialog)?.dialog ?? shown ?? dialog;
  }

  /** Show a dialog without messages, with the system message of the one before. */
  begin() {
    this.open(newDialog(this.dialog?.system));
    this.tell.changed();
    this.composer.focus();
  }

  /** Send what a person has typed. */
  send(text) {
    if (!text.trim() || this.answers.of(this.dialog)) return;
    this.composer.clear();
    this.dialog.messages.push({ role: "user", content: text });
    this.answer();
  }

  /** Have the shown dialog answered. */
  answer() {
    this.errors.delete(this.dialog.id);
    this.keep(this.dialog);
    const wasTrouble = at("offer").contains(document.activeElement);
    this.answers.write(this.dialog);
    if (wasTrouble) at("stop").focus(); // the button that was pressed is gone
    toEnd();
  }

  /** Return whether redrawing would discard what a person is editing. */
  isBusy() {
    const isEdited = this.hasNewSystem || at("messages").querySelector("form");
    return Boolean(this.answers.of(this.dialog) || isEdited);
  }

  /** End the answer that is being written. Returns whether there is one. */
  stop() {
    const isBusy = Boolean(this.answers.of(this.dialog));
    this.answers.stop(this.dialog);
    return isBusy;
  }

  /** Answer a question again; what came after is removed. */
  retry(position) {
    this.truncate(position + 1, "What came after that answer is removed.");
    this.answer();
    this.composer.focus();
  }

  /** Show another version of the last answer. */
  turn(message, step) {
    message.shown += step;
    this.keep(this.dialog);
    this.draw();
    const words = step < 0 ? "Previous answer" : "Next answer";
    const last = at("messages").lastElementChild;
    const wanted = last.querySelector(`[aria-label="${words}"]:not(:disabled)`);
    (wanted ?? last.querySelector(".tools button:not(:disabled)")).focus();
    announce(contentOf(message));
  }

  /** Take messages off the end, in a way that can be undone. */
  truncate(length, words) {
    const { dialog } = this;
    if (dialog.messages.length <= length) return;
    const before = structuredClone(dialog.messages);
    dialog.messages.length = length;
    const undo = async () => {
      await this.answers.stop(dialog);
      this.errors.delete(dialog.id);
      dialog.messages = before;
      this.keep(dialog);
      this.open(dialog);
    };
    notify(words, { label: "Undo", act: undo });
  }

  editLatest() {
    const latest = this.dialog.messages.findLastIndex(({ role }) => role === "user");
    if (latest >= 0 && !this.answers.of(this.dialog)) this.edit(latest);
  }

  /** Replace a message by a form. */
  edit(position) {
    const item = at("messages").children[position];
    const message = this.dialog.messages[position];
    const back = () => {
      this.draw();
      at("messages").children[position].querySelector(".tools button[aria-label^=Edit]").focus();
    };
    const done = (text) => {
      if (message.role === "user") {
        this.truncate(position, "What came after that message is removed.");
        this.dialog.messages.push({ role: "user", content: text });
        this.answer();
        this.composer.focus();
      } else {
        message.shown =
          message.versions.push({ content: text, note: { about: "edited by you" } }) - 1;
        this.keep(this.dialog);
        back();
      }
    };
    const form = editor(message, done, back);
    item.querySelector(".body").replaceChildren(form);
    item.querySelector(":scope > .tools").replaceChildren();
    form.firstElementChild.focus();
  }

  /** Forget a dialog, in a way that can be undone. */
  delete(dialog) {
    this.answers.stop(dialog);
    this.gone.add(dialog.id); // its answer may still end
    remove(dialog.id);
    const undo = () => {
      this.gone.delete(dialog.id);
      this.keep(dialog);
      this.open(dialog);
      this.tell.changed();
    };
    notify(`“${titleOf(dialog)}” is deleted.`, { label: "Undo", act: undo });
    if (this.dialog.id === dialog.id) this.begin();
    this.tell.changed();
  }

  /** Keep a dialog, and say so where that fails. */
  keep(dialog, { touch = true } = {}) {
    if (this.gone.has(dialog.id)) return;
    if (touch) dialog.changed = Date.now();
    try {
      if (save(dialog)) {
        notify("Another tab has changed this dialog too: this version is saved as another dialog.");
        if (dialog === this.dialog) keep("open", dialog.id);
      }
    } catch (error) {
      notify(error.message);
    }
    this.tell.changed();
  }

  /** Keep a dialog with what there is of its answer; without any, its question is kept already. */
  keepRun(run) {
    this.saved.set(run, performance.now());
    if (run.version.content) this.keep(run.dialog);
  }

  grow(run) {
    if (performance.now() - (this.saved.get(run) ?? run.asked) > SAVING) this.keepRun(run);
    if (run.dialog !== this.dialog || this.waiting.has(run)) return;
    this.waiting.add(run);
    requestAnimationFrame(() => {
      this.waiting.delete(run);
      if (run.dialog !== this.dialog || this.answers.of(this.dialog) !== run) return;
      const follow = isAtEnd();
      fillRunning(at("messages").lastElementChild, run);
      if (follow) toEnd();
    });
  }

  end(run, failed) {
    this.keep(run.dialog);
    if (failed) this.errors.set(run.dialog.id, failed);
    if (run.dialog === this.dialog) {
      const follow = isAtEnd();
      this.draw();
      if (follow) toEnd();
      if (!failed) announce(`${this.model}: ${run.version.content}`);
    }
    if (failed?.status === 401) this.tell.refused();
  }

  refresh(dialog) {
    if (dialog === this.dialog) this.draw();
  }

  /** Draw the whole dialog. */
  draw() {
    const { dialog } = this;
    const run = this.answers.of(dialog);
    at("dialog-title").textContent = titleOf(dialog);
    at("messages").replaceChildren(
      ...dialog.messages.map((message, position) => {
        const isLast = position === dialog.messages.length - 1;
        return messageElement(
          message,
          { model: this.model, isLast, isBusy: Boolean(run) },
          {
            edit: () => this.edit(position),
            retry: () => this.retry(position),
            turn: (step) => this.turn(message, step),
          },
        );
      }),
    );
    if (run) fillRunning(at("messages").lastElementChild, run);
    at("welcome").hidden = dialog.messages.length > 0;
    this.composer.offer({ isRunning: Boolean(run), hasMessages: dialog.messages.length > 0 });
    sayTrouble(run ? null : this.errors.get(dialog.id));
    this.drawOffer();
  }

  drawOffer() {
    const { dialog } = this;
    clearOffer();
    if (this.answers.of(dialog) || dialog.messages.at(-1)?.role !== "user") return;
    offerAnswer(this.errors.get(dialog.id), {
      answer: () => this.answer(),
      edit: () => this.editLatest(),
      enterKey: this.tell.refused,
      mayRetry: (error) => this.answers.mayRetry(dialog, error),
    });
  }

  keepSystem() {
    if (this.hasNewSystem && this.dialog) this.keep(this.dialog, { touch: false });
    this.hasNewSystem = false;
  }

  markSystem() {
    const { system } = this.dialog;
    at("system-summary").textContent = system.trim() ? `System message: ${system}` : "System message";
  }
}
