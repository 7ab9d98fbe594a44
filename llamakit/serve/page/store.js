// Dialogs and settings in the browser. Nothing of them is kept anywhere else.

const PREFIX = "llamakit.dialog.";
const SETTINGS = "llamakit.settings";

/** The browser does not keep it; the message is a sentence. */
export class NotKept extends Error {}

/** Make a dialog without messages. */
export function newDialog(system = "") {
  const now = Date.now();
  const id = `${now.toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  return { id, title: "", named: false, created: now, changed: now, system, messages: [] };
}

/** Return what a message says: of an answer, the version that is shown. */
export function contentOf(message) {
  return message.role === "user" ? message.content : message.versions[message.shown].content;
}

/** Return a dialog's name: the one given, else how it begins. */
export function titleOf(dialog) {
  if (dialog.named) return dialog.title;
  const first = dialog.messages[0];
  const words = first ? contentOf(first).replace(/\s+/g, " ").trim() : "";
  return words.length > 48 ? `${words.slice(0, 47).trimEnd()}…` : words || "New dialog";
}

/** Return all dialogs, the latest first. One that cannot be read is passed over. */
export function dialogs() {
  const found = [];
  try {
    for (let number = 0; number < localStorage.length; number += 1) {
      const name = localStorage.key(number);
      if (name.startsWith(PREFIX)) found.push(load(name.slice(PREFIX.length)));
    }
  } catch {
    // a browser that keeps nothing
  }
  return found.filter(Boolean).sort((one, other) => other.changed - one.changed);
}

/** Return a dialog, or null. */
export function load(id) {
  try {
    const dialog = JSON.parse(localStorage.getItem(PREFIX + id));
    dialog.messages.forEach((message) => contentOf(message).trim()); // throws on what is none
    return typeof dialog.system === "string" ? dialog : null;
  } catch {
    return null;
  }
}

/** Keep a dialog. Throws NotKept. */
export function save(dialog) {
  write(PREFIX + dialog.id, JSON.stringify(dialog));
}

/** Forget a dialog. */
export function remove(id) {
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    // it was not kept
  }
}

/** Tell when another tab of the page has changed something. */
export function onChangeElsewhere(listener) {
  window.addEventListener("storage", (event) => {
    if (event.key === null || event.key.startsWith(PREFIX)) {
      listener(event.key?.slice(PREFIX.length));
    }
  });
}

/** Return the settings as they were kept, or nothing. */
export function loadSettings() {
  try {
    return JSON.parse(localStorage.getItem(SETTINGS)) ?? {};
  } catch {
    return {};
  }
}

/** Keep the settings. Throws NotKept. */
export function saveSettings(settings) {
  write(SETTINGS, JSON.stringify(settings));
}

/** Keep a short text, or forget it when it is empty; it does not matter if that fails. */
export function keep(name, text) {
  try {
    if (text) localStorage.setItem(`llamakit.${name}`, text);
    else localStorage.removeItem(`llamakit.${name}`);
  } catch {
    // it is only a convenience
  }
}

/** Return a short text that was kept, or "". */
export function kept(name) {
  try {
    return localStorage.getItem(`llamakit.${name}`) ?? "";
  } catch {
    return "";
  }
}

function write(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch (error) {
    const full = error.name === "QuotaExceededError";
    throw new NotKept(
      full
        ? "The browser's room for this page is full, so this is not kept: export dialogs, then " +
          "delete some."
        : "The browser keeps nothing of this page, so all of it is lost when the tab is closed.",
    );
  }
}
