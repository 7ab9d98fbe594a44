// Making elements. Strings become text nodes and nothing else: the page has no way to insert HTML.

/**
 * Make an element.
 * @param {string} tag
 * @param {object} attributes "on" holds listeners, "text" the text, "class" the classes; false and
 *     null leave an attribute out.
 * @param {...(Node|string|null)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else if (name === "text") {
      element.textContent = value;
    } else if (name === "value") {
      element.value = value;
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Make a button with a label, and a longer name for screen readers. */
export function button(text, listener, attributes = {}) {
  return make("button", { type: "button", ...attributes, on: { click: listener } }, text);
}

/** Find one of the page's own elements. */
export function at(id) {
  return document.getElementById(id);
}

/** Show one button in the place of another; the focus goes with it. */
export function swap(shown, hidden) {
  const isFocused = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (isFocused) shown.focus();
}

let count = 0;

/** Return an id that no other element has. */
export function freshId(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

/** Say something to those who listen to the page. */
export function announce(text) {
  const region = at("announcer");
  region.textContent = "";
  // readers speak of a change only if the region was empty for a moment
  setTimeout(() => {
    region.textContent = text;
  }, 50);
}

const MOST_NOTES = 3;

/**
 * Show a note for a few seconds.
 * @param {string} text
 * @param {{label: string, act: function()}=} offer something that can be done, such as undo
 */
export function notify(text, offer) {
  const notes = at("note");
  const note = make("div", { class: "note" }, make("span", { text }));
  const hide = () => note.remove();
  // the same once more takes the place of what was said before; an offer stays for its time
  for (const other of [...notes.children]) {
    if (other.firstChild.textContent === text || !other.dataset.offer) other.remove();
  }
  while (notes.children.length >= MOST_NOTES) notes.firstChild.remove();
  if (offer) {
    const act = () => {
      hide();
      offer.act();
    };
    note.dataset.offer = "true";
    note.append(button(offer.label, act, { class: "quiet" }));
  }
  note.append(button("✕", hide, { class: "quiet", "aria-label": "Close the note" }));
  notes.append(note);
  setTimeout(hide, offer ? 12000 : 6000);
}

/** Offer a string as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Say a number with as many digits as a person wants. */
export function short(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);
}
