// The panels at the sides, and the colors: what is open is kept.

import { at } from "./dom.js";
import { keep, kept } from "./store.js";

const NARROW = matchMedia("(max-width: 60rem)");
const DARK = matchMedia("(prefers-color-scheme: dark)");

export class Panels {
  /** @param {string[]} names of panels; the button of NAME is toggle-NAME. */
  constructor(names) {
    this.names = names;
    for (const name of names) {
      at(`toggle-${name}`).addEventListener("click", () => {
        const isOpen = at(name).hidden;
        this.set(name, isOpen);
        if (!NARROW.matches) keep(`panel.${name}`, isOpen ? "" : "closed");
        if (isOpen) at(name).querySelector("button, select, input").focus();
      });
    }
    at("shade").addEventListener("click", () => this.closeIfNarrow());
    NARROW.addEventListener("change", () => this.arrange());
    at("toggle-theme").addEventListener("click", turnColors);
    DARK.addEventListener("change", nameColors);
    nameColors();
    this.arrange();
  }

  /** On a wide page both are open, if nobody has closed them; on a narrow one they cover it. */
  arrange() {
    for (const name of this.names) {
      this.set(name, !NARROW.matches && kept(`panel.${name}`) !== "closed");
    }
  }

  set(name, isOpen) {
    if (isOpen && NARROW.matches) this.closeIfNarrow();
    at(name).hidden = !isOpen;
    at(`toggle-${name}`).setAttribute("aria-expanded", String(isOpen));
    at("shade").hidden = !NARROW.matches || this.names.every((it) => at(it).hidden);
  }

  /** Close what covers the page. Returns whether something did. */
  closeIfNarrow() {
    if (!NARROW.matches) return false;
    const open = this.names.filter((name) => !at(name).hidden);
    for (const name of open) {
      this.set(name, false);
      if (at(name).contains(document.activeElement)) at(`toggle-${name}`).focus();
    }
    return open.length > 0;
  }
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (DARK.matches ? "dark" : "light")) === "dark";
}

function turnColors() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  // what the system wants anyway is not kept, so that the page follows the system again
  keep("theme", (theme === "dark") === DARK.matches ? "" : theme);
  if ((theme === "dark") === DARK.matches) delete document.documentElement.dataset.theme;
  nameColors();
}

function nameColors() {
  const words = isDark() ? "Light colors" : "Dark colors";
  at("toggle-theme").setAttribute("aria-label", words);
  at("toggle-theme").title = words;
  at("toggle-theme").textContent = isDark() ? "☀" : "☾";
}
