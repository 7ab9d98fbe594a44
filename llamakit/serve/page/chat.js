// The chat: one dialog as it is shown, and what a person does to it.

import { Answers } from "./answers.js";
import { announce, at, button, make, notify, swap } from "./dom.js";
import { editor, fillRunning, messageElement, sends } from "./messages.js";
import { contentOf, keep, newDialog, remove, save, titleOf } from "./store.js";

const NEAR = 80; // pixels from the end within which the view follows an answer

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
    this.gone = new Set();
    this.answers = new Answers(settings, {
      begun: (run) => this.refresh(run.dialog),
      grown: (run) => this.grow(run),
      ended: (run, failed) => this.end(run, failed),
    });
    this.listen();
  }

  listen() {
    const text = at("message");
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(text.value);
    });
    text.addEventListener("keydown", (event) => {
      if (sends(event)) {
        event.preventDefault();
        this.send(text.value);
      } else if (event.key === "ArrowUp" && !text.value) {
        event.preventDefault();
        this.editLatest();
      }
    });
    text.addEventListener("input", () => this.fit());
    at("stop").addEventListener("click", () => this.stop());
    at("system").addEventListener("input", () => {
      this.dialog.system = at("system").value;
      this.markSystem();
    });
    at("system").addEventListener("change", () => this.keepSystem());
    window.addEventListener("pagehide", () => {
      this.keepSystem();
      for (const { dialog } of this.answers.runs.values()) this.keep(dialog);
    });
  }

  /** Show a dialog. */
  open(dialog) {
    this.dialog = this.answers.of(dialog)?.dialog ?? dialog;
    at("system").value = this.dialog.system;
    this.markSystem();
    keep("open", this.dialog.id);
    this.draw();
    this.toEnd();
  }

  /** Show a dialog without messages, with the system message of the one before. */
  begin() {
    this.open(newDialog(this.dialog?.system));
    this.tell.changed();
    at("message").focus();
  }

  /** Send what a person has typed. */
  send(text) {
    if (!text.trim() || this.answers.of(this.dialog)) return;
    at("message").value = "";
    this.fit();
    this.dialog.messages.push({ role: "user", content: text });
    this.answer();
  }

  /** Have the shown dialog answered. */
  answer() {
    this.errors.delete(this.dialog.id);
    this.keep(this.dialog);
    const wasTrouble = at("trouble").contains(document.activeElement);
    this.answers.write(this.dialog);
    if (wasTrouble) at("stop").focus(); // the button that was pressed is gone
    this.toEnd();
  }

  /** Return whether redrawing would discard what a person is editing. */
  isBusy() {
    return Boolean(this.answers.of(this.dialog) || at("messages").querySelector("form"));
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
    at("message").focus();
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
        at("message").focus();
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
      save(dialog);
    } catch (error) {
      notify(error.message);
    }
    this.tell.changed();
  }

  grow(run) {
    if (run.dialog !== this.dialog || this.waiting.has(run)) return;
    this.waiting.add(run);
    requestAnimationFrame(() => {
      this.waiting.delete(run);
      if (run.dialog !== this.dialog || this.answers.of(this.dialog) !== run) return;
      const follow = this.isAtEnd();
      fillRunning(at("messages").lastElementChild, run);
      if (follow) this.toEnd();
    });
  }

  end(run, failed) {
    if (failed) this.errors.set(run.dialog.id, failed.message);
    this.keep(run.dialog);
    if (run.dialog === this.dialog) {
      const follow = this.isAtEnd();
      this.draw();
      if (follow) this.toEnd();
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
    if (run) swap(at("stop"), at("send"));
    else swap(at("send"), at("stop"));
    this.drawTrouble(run);
  }

  /** Say what went wrong, and offer an answer where a question has none. */
  drawTrouble(run) {
    const trouble = at("trouble");
    trouble.replaceChildren();
    if (run) return;
    const error = this.errors.get(this.dialog.id);
    if (error) trouble.append(make("p", { role: "alert", text: error }));
    if (this.dialog.messages.at(-1)?.role === "user") {
      trouble.append(button(error ? "Try again" : "Get an answer", () => this.answer()));
    }
  }

  keepSystem() {
    if (this.dialog?.messages.length) this.keep(this.dialog, { touch: false });
  }

  markSystem() {
    const { system } = this.dialog;
    at("system-summary").textContent = system.trim() ? `System message: ${system}` : "System message";
  }

  fit() {
    const text = at("message");
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, 240)}px`;
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = at("scroller");
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  toEnd() {
    at("scroller").scrollTop = at("scroller").scrollHeight;
  }
}
