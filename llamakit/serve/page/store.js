// Dialogs and settings in the browser. Nothing of them is kept anywhere else.

const PREFIX = "llamakit.dialog.";
const SETTINGS = "llamakit.settings";
const LONGEST_TITLE = 48; // characters

/** The dialogs that the browser did not store, by ID, as JSON: they last as long as the tab. */
const unsaved = new Map();

/** The browser does not store it; the message is a sentence. */
export class NotKept extends Error {}

/** Make a dialog without messages. */
export function newDialog(system = "") {
  const now = Date.now();
  const id = freshId();
  return { id, title: "", named: false, created: now, changed: now, system, messages: [] };
}

function freshId() {
  return `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
}

/** Return what a message says: of an answer, the version that is shown. */
export function contentOf(message) {
  return message.role === "user" ? message.content : message.versions[message.shown].content;
}

/** Return a dialog's name: the one given, else how it begins. */
export function titleOf(dialog) {
  if (dialog.named) return dialog.title;
  const first = dialog.messages[0];
  const words = first ? contentOf(first).trim().slice(0, 1000).replace(/\s+/g, " ") : "";
  // by what a reader takes for a character, so that no emoji is cut in two
  const characters = [...new Intl.Segmenter().segment(words)].map(({ segment }) => segment);
  if (characters.length <= LONGEST_TITLE) return words || "New dialog";
  return `${characters.slice(0, LONGEST_TITLE - 1).join("").trimEnd()}…`;
}

/** Return all dialogs, the latest first. One that cannot be read is passed over. */
export function dialogs() {
  const ids = new Set(unsaved.keys());
  try {
    for (let number = 0; number < localStorage.length; number += 1) {
      const name = localStorage.key(number);
      if (name.startsWith(PREFIX)) ids.add(name.slice(PREFIX.length));
    }
  } catch {
    // a browser that stores nothing
  }
  const found = [...ids].map(load).filter(Boolean);
  return found.sort((one, other) => other.changed - one.changed);
}

/** Return a dialog, or null. */
export function load(id) {
  try {
    const dialog = JSON.parse(unsaved.get(id) ?? localStorage.getItem(PREFIX + id));
    dialog.messages.forEach((message) => contentOf(message).trim()); // throws on what is none
    return typeof dialog.system === "string" ? dialog : null;
  } catch {
    return null;
  }
}

/**
 * Store a dialog. If another tab has changed it since it was read here, that one stays as it is,
 * and this one gets an ID of its own. Throws NotKept: until the tab is closed it is still there.
 * @returns {boolean} whether it was changed in another tab.
 */
export function save(dialog) {
  const isOutdated = !unsaved.has(dialog.id) && hasChangedElsewhere(dialog);
  if (isOutdated) dialog.id = freshId();
  dialog.revision = freshId();
  const text = JSON.stringify(dialog);
  try {
    write(PREFIX + dialog.id, text);
    unsaved.delete(dialog.id);
  } catch (error) {
    unsaved.set(dialog.id, text);
    throw error;
  }
  return isOutdated;
}

function hasChangedElsewhere({ id, revision }) {
  const stored = load(id);
  return stored !== null && stored.revision !== revision;
}

/** Forget a dialog. There may be room for another one now. */
export function remove(id) {
  unsaved.delete(id);
  try {
    localStorage.removeItem(PREFIX + id);
    for (const [other, text] of unsaved) {
      write(PREFIX + other, text);
      unsaved.delete(other);
    }
  } catch {
    // a browser that stores nothing, or still too little room
  }
}

/** Return whether closing the tab would lose a dialog. */
export function hasUnsaved() {
  return unsaved.size > 0;
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

/**
 * Keep a short text, or forget it when it is empty; it does not matter if that fails.
 * @param {function(): Storage} storage sessionStorage where it is of this tab alone.
 */
export function keep(name, text, storage = () => localStorage) {
  try {
    if (text) storage().setItem(`llamakit.${name}`, text);
    else storage().removeItem(`llamakit.${name}`);
  } catch {
    // it is only a convenience
  }
}

/** Return a short text that was kept, or "". */
export function kept(name, storage = () => localStorage) {
  try {
    return storage().getItem(`llamakit.${name}`) ?? "";
  } catch {
    return "";
  }
}

/** Where a text is kept that belongs to this tab. */
export const ofThisTab = () => sessionStorage;

function write(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch (error) {
    const full = error.name === "QuotaExceededError";
    throw new NotKept(
      full
        ? "The browser's storage for this page is full, so this is not saved: export dialogs, " +
          "then delete some."
        : "The browser stores nothing for this page: export what you need before you close the tab.",
    );
  }
}
