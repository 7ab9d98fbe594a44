// Dialogs as files: what is exported, and what is taken back in.
//
// One dialog is a file that `llamakit chat` opens with /load, too: its reader passes over the keys
// that it does not know.

import { newDialog, titleOf } from "./store.js";

const ONE = "llamakit chat 1";
const MANY = "llamakit dialogs 1";

/** Return one dialog as the text of a file. */
export function exportOne(dialog) {
  return text({ format: ONE, ...outward(dialog) });
}

/** Return several dialogs as the text of a file. */
export function exportMany(dialogs) {
  return text({ format: MANY, dialogs: dialogs.map(outward) });
}

/** Return a name for a dialog's file. */
export function fileName(dialog) {
  const words = titleOf(dialog).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["dialog"];
  return `${[...words.join("-")].slice(0, 40).join("")}.json`;
}

/** Read the text of a file. Throws an Error whose message is a sentence. */
export function importDialogs(content) {
  let value;
  try {
    value = JSON.parse(content);
  } catch {
    throw new Error("The file is not JSON, so there are no dialogs in it.");
  }
  const found = value?.format === MANY ? value.dialogs : [value];
  if (!Array.isArray(found)) throw new Error("The file has no list of dialogs.");
  return found.map(inward);
}

function text(value) {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function outward(dialog) {
  const { created, changed, system, messages } = dialog;
  const head = system ? [{ role: "system", content: system }] : [];
  return {
    title: titleOf(dialog),
    created: new Date(created).toISOString(),
    changed: new Date(changed).toISOString(),
    messages: [
      ...head,
      ...messages.map(({ role, versions, shown, ...rest }) =>
        role === "user"
          ? { role, ...rest }
          : { role, content: versions[shown].content, shown, versions },
      ),
    ],
  };
}

function inward(value) {
  const wrong = new Error(
    "The file is no dialog: expected messages, each with a role (system, user or assistant) and " +
      "a content (text).",
  );
  if (!Array.isArray(value?.messages)) throw wrong;
  const dialog = newDialog();
  for (const message of value.messages) {
    const { role, content } = message ?? {};
    if (typeof content !== "string") throw wrong;
    if (role === "system") dialog.system = content;
    else if (role === "user") dialog.messages.push({ role, content });
    else if (role === "assistant") dialog.messages.push(answer(message));
    else throw wrong;
  }
  if (typeof value.title === "string" && value.title) {
    Object.assign(dialog, { title: value.title, named: true });
  }
  dialog.created = Date.parse(value.created) || dialog.created;
  dialog.changed = Date.parse(value.changed) || dialog.changed;
  return dialog;
}

function answer({ content, versions, shown }) {
  const whole =
    Array.isArray(versions) &&
    Number.isInteger(shown) &&
    versions.every((version) => typeof version?.content === "string") &&
    versions[shown]?.content === content;
  if (!whole) return { role: "assistant", versions: [{ content, note: {} }], shown: 0 };
  const read = versions.map((version) => ({ content: version.content, note: note(version.note) }));
  return { role: "assistant", versions: read, shown };
}

// Only what the page shows of an answer, and only where it has the type that it should have.
function note(given) {
  const kinds = {
    ...{ tokens: "number", rate: "number", context: "number", leftOut: "number", room: "number" },
    ...{ finish: "string", about: "string" },
  };
  const pairs = Object.entries(kinds).filter(([name, kind]) => typeof given?.[name] === kind);
  return Object.fromEntries(pairs.map(([name]) => [name, given[name]]));
}
