// A model's text as elements: paragraphs, code, bold. Whatever else it holds stays text.

import { button, make, notify } from "./dom.js";

const FENCE = /^```([\w+#.-]*)[^\n]*\n([\s\S]*?)(?:\n?^```[ \t]*$|$(?![\s\S]))/m;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;

/** Return text as a list of elements. */
export function render(text) {
  const found = [];
  let rest = text;
  for (let fence = FENCE.exec(rest); fence; fence = FENCE.exec(rest)) {
    found.push(...paragraphs(rest.slice(0, fence.index)), code(fence[1], fence[2]));
    rest = rest.slice(fence.index + fence[0].length);
  }
  return [...found, ...paragraphs(rest)];
}

function paragraphs(text) {
  return text
    .split(/\n[ \t]*\n/)
    .map((part) => part.replace(/^\n+|\s+$/g, ""))
    .filter((part) => part.trim())
    .map((part) => make("p", {}, ...inline(part)));
}

function inline(text) {
  const found = [];
  let done = 0;
  for (const match of text.matchAll(INLINE)) {
    found.push(text.slice(done, match.index));
    const [whole, asCode, asBold] = match;
    found.push(asCode ? make("code", { text: asCode }) : make("strong", { text: asBold }));
    done = match.index + whole.length;
  }
  return [...found, text.slice(done)];
}

function code(language, text) {
  const name = language ? `${language} code` : "code";
  return make(
    "figure",
    { class: "code" },
    make("figcaption", {}, make("span", { text: name }), copyButton(() => text, "the code")),
    make("pre", { tabindex: "0", role: "group", "aria-label": name }, make("code", { text })),
  );
}

/** Make a button that copies text, or null if the browser does not allow that. */
export function copyButton(text, what) {
  if (!navigator.clipboard) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      notify("Copied.");
    } catch {
      notify("The browser did not allow the copy.");
    }
  };
  return button("Copy", copy, { class: "quiet", "aria-label": `Copy ${what}` });
}
