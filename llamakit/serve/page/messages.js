// One message of a dialog as elements, and the form that edits it.

import { button, make, short } from "./dom.js";
import { copyButton, show } from "./render.js";
import { contentOf } from "./store.js";

// Where a finger is all there is, Enter on the keyboard of the screen is a new line.
const TOUCH = matchMedia("(hover: none) and (pointer: coarse)");
const ENDS = {
  length: "truncated: the token limit was reached",
  stopped: "stopped",
  lost: "incomplete: the connection was lost",
  failed: "incomplete: an error ended it",
};

/**
 * Make the element of a message.
 * @param {object} message
 * @param {{model: string, isLast: boolean, isBusy: boolean}} place
 * @param {{edit: function(), retry: function(), turn: function(number)}} acts
 */
export function messageElement(message, place, acts) {
  const isUser = message.role === "user";
  const body = make("div", { class: "body" });
  const item = make(
    "li",
    { class: `message ${message.role}` },
    make("h3", { text: isUser ? "You" : place.model }),
    body,
    make("div", { class: "tools" }),
  );
  fill(item, message);
  if (!place.isBusy) item.lastElementChild.append(...tools(message, place, acts));
  return item;
}

/** Show what a message says now. */
function fill(item, message) {
  const content = contentOf(message);
  const body = item.querySelector(".body");
  if (message.role === "user") {
    body.replaceChildren(make("p", { dir: "auto", text: content }));
  } else {
    show(body, content);
    if (!content.trim()) body.append(make("p", { class: "help", text: "(empty answer)" }));
  }
}

/** Show that an answer is being written, and how fast. */
export function fillRunning(item, run) {
  item.setAttribute("aria-busy", "true");
  show(item.querySelector(".body"), run.version.content);
  const rate = run.rate();
  const words = rate === null ? "…" : `about ${short(rate)} tokens/s`;
  item.querySelector(".tools").replaceChildren(make("span", { class: "stats", text: words }));
}

function tools(message, { isLast }, acts) {
  const quiet = (text, words, listener) =>
    button(text, listener, { class: "quiet", "aria-label": words, title: words });
  const copy = copyButton(() => contentOf(message), "this message");
  const found = [];
  if (message.role === "user") {
    found.push(quiet("Edit", "Edit this message and continue from there", acts.edit), copy);
  } else {
    found.push(
      ...versions(message, isLast, acts),
      quiet("Retry", "Answer again", acts.retry),
      quiet("Edit", "Edit this answer", acts.edit),
      copy,
      make("span", { class: "stats", text: statistics(message.versions[message.shown].note ?? {}) }),
    );
  }
  return found.filter(Boolean);
}

function versions(message, isLast, acts) {
  const count = message.versions.length;
  if (count < 2 || !isLast) return [];
  const turn = (mark, words, step) =>
    button(mark, () => acts.turn(step), {
      class: "quiet",
      "aria-label": words,
      disabled: !message.versions[message.shown + step],
    });
  return [
    turn("‹", "Previous answer", -1),
    make("span", { class: "stats", text: `${message.shown + 1} of ${count}` }),
    turn("›", "Next answer", 1),
  ];
}

function statistics(note) {
  const parts = [];
  if (note.tokens !== undefined) parts.push(`${note.tokens} tokens`);
  if (note.rate !== undefined) parts.push(`${short(note.rate)} tokens/s`);
  if (note.context !== undefined) parts.push(`${note.context} in the context`);
  if (note.leftOut) parts.push(`without the first ${note.leftOut} messages, to fit the context`);
  if (ENDS[note.finish]) parts.push(ENDS[note.finish]);
  if (note.about) parts.push(note.about);
  return parts.join(" · ");
}

/**
 * Make the form that edits a message.
 * @param {object} message
 * @param {function(string)} done
 * @param {function()} cancel
 */
export function editor(message, done, cancel) {
  const isUser = message.role === "user";
  const content = contentOf(message);
  const text = make("textarea", {
    "aria-label": isUser ? "Your message" : "The answer",
    rows: String(Math.min(12, content.split("\n").length + 2)),
    value: content,
    dir: "auto",
  });
  const form = make(
    "form",
    { class: "editor" },
    text,
    make(
      "div",
      { class: "tools" },
      make("button", { type: "submit", text: isUser ? "Send from here" : "Save" }),
      button("Cancel", cancel, { class: "quiet" }),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value.trim()) done(text.value);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (isUser && sends(event)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  return form;
}

/** Return whether Enter sends on this device. */
export function enterSends() {
  return !TOUCH.matches;
}

/**
 * Tell whether a key means "send": Enter, and not to choose a word of an input method (the key code
 * 229 is Safari's way of saying so).
 */
export function sends(event) {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return false;
  return event.ctrlKey || event.metaKey || (enterSends() && !event.shiftKey && !event.altKey);
}
