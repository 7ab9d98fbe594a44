// What is known of one token: how likely it was, and the alternatives in its place.

import { button, make } from "./dom.js";
import { canContinue, percent, visible } from "./tokens.js";

/**
 * Return the elements that show a token.
 * @param {Token} token
 * @param {number} position
 * @param {number} asked how many alternatives the server was asked for.
 * @param {?function(string)} continueWith continues with another string in the token's place.
 */
export function inspect(token, position, asked, continueWith) {
  const found = [
    make(
      "h3",
      {},
      `Token ${position + 1}: `,
      make("code", { class: "piece", text: visible(token.text) }),
    ),
  ];
  if (token.logprob === null) {
    return [...found, make("p", { text: "The first token has no probability: nothing comes before it." })];
  }
  const bits = (-token.logprob / Math.LN2).toFixed(2);
  found.push(
    make("p", {
      text: `${percent(token.logprob)} · logprob ${token.logprob.toFixed(3)} · ${bits} bits`,
    }),
  );
  if (token.sampler) {
    found.push(make("p", { text: `${percent(token.sampler.logprob)} after processors, temperature and top-p` }));
  } else {
    found.push(make("p", { class: "help", text: "Part of the prompt, so it was not sampled." }));
  }
  return [...found, table(rows(token, asked), token.sampler !== null, continueWith)];
}

/** List the alternatives, the token itself among them, and what is left for all others. */
function rows(token, asked) {
  const { top, sampler } = token;
  const texts = new Set([...top, ...(sampler?.top ?? []), token].map(({ text }) => text));
  const listed = [...texts].map((text) => ({
    text,
    logprob: known(top, text, token, token.logprob),
    drawn: known(sampler?.top ?? [], text, token, sampler?.logprob ?? null),
    isChosen: text === token.text,
  }));
  const rest = left(listed.map(({ logprob }) => logprob));
  const restDrawn = left(listed.map(({ drawn }) => drawn));
  // fewer than asked for are all that there are: the others were ruled out
  const isAll = sampler !== null && sampler.top.length < asked;
  const found = listed.map((row) => ({ ...row, isOut: isAll && row.drawn === null }));
  if (rest > 1e-6) {
    const drawn = sampler && restDrawn > 1e-6 ? Math.log(restDrawn) : null;
    found.push({ text: null, logprob: Math.log(rest), drawn, isChosen: false, isOut: isAll });
  }
  return found;
}

function known(top, text, token, own) {
  const found = top.find((other) => other.text === text);
  return found ? found.logprob : text === token.text ? own : null;
}

function left(logprobs) {
  return 1 - logprobs.reduce((sum, it) => sum + (it === null ? 0 : Math.exp(it)), 0);
}

function table(found, isDrawn, continueWith) {
  const head = ["Token", "Model", ...(isDrawn ? ["Sampler"] : []), ...(continueWith ? ["Continue"] : [])];
  return make(
    "table",
    { class: "alternatives" },
    make("caption", { text: "Alternatives at this position" }),
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...found.map((row) => line(row, isDrawn, continueWith))),
  );
}

function line({ text, logprob, drawn, isChosen, isOut }, isDrawn, continueWith) {
  const name =
    text === null
      ? make("th", { scope: "row", text: "All others" })
      : make("th", { scope: "row" }, make("code", { class: "piece", text: visible(text) }));
  if (isChosen) name.append(make("span", { class: "help", text: " chosen" }));
  return make(
    "tr",
    { class: isChosen ? "taken" : null },
    name,
    amount(logprob, "Not listed"),
    isDrawn ? amount(drawn, isOut ? "Ruled out" : "Not listed") : null,
    continueWith ? make("td", {}, continueButton(text, isChosen, continueWith)) : null,
  );
}

/** Make the cell of a probability, or of a word where it is not known. */
function amount(logprob, word) {
  if (logprob === null) return make("td", {}, make("span", { class: "help", text: word }));
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${Math.exp(logprob) * 100}%`;
  return make("td", {}, make("span", { class: "amount", text: percent(logprob) }), bar);
}

function continueButton(text, isChosen, continueWith) {
  if (text === null || !canContinue(text)) return null;
  const words = isChosen ? "Continue from here again" : `Continue with ${visible(text)} instead`;
  return button("→", () => continueWith(text), { class: "quiet", "aria-label": words, title: words });
}
