// The field in which a message is written: its draft, its height, and what its keys do.

import { at, swap } from "./dom.js";
import { enterSends, sends } from "./messages.js";
import { keep, kept, ofThisTab } from "./store.js";

const HIGHEST = 240; // pixels

export class Composer {
  /** @param {{send: function(string), edit: function(), stop: function()}} acts */
  constructor(acts) {
    this.acts = acts;
    this.field = at("message");
    this.field.value = kept("draft", ofThisTab);
    this.field.enterKeyHint = enterSends() ? "send" : "enter";
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      acts.send(this.field.value);
    });
    this.field.addEventListener("keydown", (event) => this.press(event));
    this.field.addEventListener("input", () => {
      keep("draft", this.field.value, ofThisTab);
      this.fit();
    });
    at("stop").addEventListener("click", acts.stop);
    this.fit();
  }

  press(event) {
    if (sends(event)) {
      event.preventDefault();
      this.acts.send(this.field.value);
    } else if (event.key === "ArrowUp" && !this.field.value) {
      event.preventDefault();
      this.acts.edit();
    }
  }

  clear() {
    this.field.value = "";
    keep("draft", "", ofThisTab);
    this.fit();
  }

  focus() {
    this.field.focus();
  }

  /** Offer what can be done now, and say which keys do it. */
  offer({ isRunning, hasMessages }) {
    if (isRunning) swap(at("stop"), at("send"));
    else swap(at("send"), at("stop"));
    const edit = hasMessages ? ", ↑ edits your latest message" : "";
    const idle = enterSends() ? `Enter sends, Shift + Enter starts a new line${edit}.` : "";
    at("keys").textContent = isRunning ? "Esc stops the answer." : idle;
  }

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight + 2, HIGHEST)}px`;
  }
}
