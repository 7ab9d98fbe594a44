// Keys that work wherever the focus is.

import { at } from "./dom.js";

/** @param {object} parts tabs, panels, chat, probabilities, and begin: a new dialog. */
export function listenToKeys({ tabs, panels, chat, probabilities, begin }) {
  document.addEventListener("keydown", (event) => {
    if (at("key-dialog").open || event.isComposing) return;
    if (event.key === "Escape") {
      if (panels.closeIfNarrow()) return;
      if (tabs.shown === "chat" ? chat.stop() : probabilities.stop()) event.preventDefault();
    } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      begin();
    }
  });
}
