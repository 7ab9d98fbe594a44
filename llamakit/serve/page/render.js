// A model's text as elements. They hold text and nothing else: no link, no image, no HTML.

import { button, make, notify } from "./dom.js";
import { parse } from "./markdown.js";

const INLINE =
  /(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)|\*\*(?!\s)([^*\n]+)\*\*|(?<![\w*])\*(?![\s*])([^*\n]+)\*(?![\w*])/gs;
const drawn = new WeakMap(); // the block that an element shows, as JSON

/** Show text in an element; what was shown of it before stays, with its focus and selection. */
export function show(element, text) {
  const blocks = parse(text);
  blocks.forEach((block, position) => {
    const old = element.children[position];
    const key = JSON.stringify(block);
    if (old && drawn.get(old) === key) return;
    const fresh = elementOf(block);
    drawn.set(fresh, key);
    if (old) old.replaceWith(fresh);
    else element.append(fresh);
  });
  while (element.childNodes.length > blocks.length) element.lastChild.remove();
}

const MAKERS = {
  paragraph: ({ text }) => make("p", { dir: "auto" }, ...inline(text)),
  // the page's own headings end with h3
  heading: ({ level, text }) =>
    make(`h${Math.min(level + 3, 6)}`, { dir: "auto" }, ...inline(text)),
  code: ({ language, text }) => code(language, text),
  list: ({ isOrdered, start, items }) =>
    make(
      isOrdered ? "ol" : "ul",
      { start: isOrdered && start !== 1 ? String(start) : null },
      ...items.map((blocks) => make("li", { dir: "auto" }, ...item(blocks))),
    ),
  quote: ({ blocks }) => make("blockquote", { dir: "auto" }, ...blocks.map(elementOf)),
  table: ({ head, rows }) => table(head, rows),
  rule: () => make("hr"),
};

function elementOf(block) {
  return MAKERS[block.kind](block);
}

/** Return what is in an item: its first paragraph is on the line of its marker. */
function item([first, ...rest]) {
  const isText = first?.kind === "paragraph";
  const head = isText ? inline(first.text) : first ? [elementOf(first)] : [];
  return [...head, ...rest.map(elementOf)];
}

function table(head, rows) {
  const line = (cells, tag, attributes = {}) =>
    make("tr", {}, ...cells.map((it) => make(tag, { dir: "auto", ...attributes }, ...inline(it))));
  return make(
    "div",
    { class: "table", tabindex: "0", role: "group", "aria-label": "Table" },
    make(
      "table",
      {},
      make("thead", {}, line(head, "th", { scope: "col" })),
      make("tbody", {}, ...rows.map((cells) => line(cells, "td"))),
    ),
  );
}

function inline(text) {
  const found = [];
  let done = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, , asCode, asBold, asItalic] = match;
    found.push(text.slice(done, match.index));
    if (asCode) found.push(make("code", { text: asCode.replace(/^ (.+) $/s, "$1") }));
    else if (asBold) found.push(make("strong", {}, ...inline(asBold)));
    else found.push(make("em", {}, ...inline(asItalic)));
    done = match.index + whole.length;
  }
  return [...found, text.slice(done)];
}

function code(language, text) {
  const name = language || "Code";
  return make(
    "figure",
    { class: "code" },
    make("figcaption", {}, make("span", { class: language ? "identifier" : null, text: name }), copyButton(() => text, "the code")),
    make(
      "pre",
      { dir: "ltr", tabindex: "0", role: "group", "aria-label": language ? `${language} code` : name },
      make("code", { text }),
    ),
  );
}

/** Make a button that copies text. */
export function copyButton(text, what) {
  const copy = async () => {
    const isDone = await toClipboard(text());
    notify(isDone ? "Copied." : "The browser did not allow the copy: select the text instead.");
  };
  return button("Copy", copy, { class: "quiet", "aria-label": `Copy ${what}`, title: "Copy" });
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text); // a page that came by HTTP from another machine has no clipboard
  }
}

function copySelected(text) {
  const { activeElement } = document;
  const area = make("textarea", { value: text, class: "visually-hidden", "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  activeElement?.focus({ preventScroll: true });
  return isDone;
}
