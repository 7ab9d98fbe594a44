// The two tabs, as screen readers and keyboards expect tabs to be.

import { at } from "./dom.js";

export class Tabs {
  /** @param {string[]} names of panels; the tab of NAME is NAME-tab. */
  constructor(names) {
    this.names = names;
    this.shown = names[0];
    for (const name of names) {
      at(`${name}-tab`).addEventListener("click", () => this.show(name));
      at(`${name}-tab`).addEventListener("keydown", (event) => this.walk(event));
    }
  }

  show(shown) {
    this.shown = shown;
    for (const name of this.names) {
      const isShown = name === shown;
      at(name).hidden = !isShown;
      at(`${name}-tab`).setAttribute("aria-selected", String(isShown));
      at(`${name}-tab`).tabIndex = isShown ? 0 : -1;
    }
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = this.names.length;
    this.show(this.names[(this.names.indexOf(this.shown) + step + count) % count]);
    at(`${this.shown}-tab`).focus();
  }
}
