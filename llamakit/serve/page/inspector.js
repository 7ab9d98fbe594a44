// What is known of one token: how likely it was, and what else could have stood there.

import { button, make } from "./dom.js";
import { canContinue, percent, visible } from "./tokens.js";

/**
 * Return the elements that show a token.
 * @param {Token} token
 * @param {number} position
 * @param {?function(string)} goOn writes on with another text in the token's place.
 */
export function inspect(token, position, goOn) {
  const found = [
    make(
      "h3",
      {},
      `Token ${position + 1}: `,
      make("code", { class: "piece", text: visible(token.text) }),
    ),
  ];
  if (token.logprob === null) {
    return [...found, make("p", { text: "Nothing stands before it, so nothing foretells it." })];
  }
  const bits = (-token.logprob / Math.LN2).toFixed(2);
  found.push(
    make("p", {
      text: `${percent(token.logprob)} · logprob ${token.logprob.toFixed(3)} · surprise ${bits} bits`,
    }),
  );
  if (!token.top.length) {
    const why = "It is the prompt's, for which the server names no alternatives.";
    return [...found, make("p", { class: "help", text: why })];
  }
  return [...found, table(rows(token), goOn)];
}

/** List the alternatives, the token itself among them, and what is left for all others. */
function rows(token) {
  const isThere = token.top.some(({ text }) => text === token.text);
  const listed = isThere ? token.top : [...token.top, token];
  const found = listed.map(({ text, logprob }) => ({
    text,
    logprob,
    isChosen: text === token.text,
  }));
  const rest = 1 - listed.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
  if (rest > 1e-6) found.push({ text: null, logprob: Math.log(rest), isChosen: false });
  return found;
}

function table(found, goOn) {
  return make(
    "table",
    { class: "alternatives" },
    make("caption", { text: "What the model expected here" }),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col", text: "Token" }),
        make("th", { scope: "col", text: "Probability" }),
        goOn ? make("th", { scope: "col", text: "Go on" }) : null,
      ),
    ),
    make("tbody", {}, ...found.map((row) => line(row, goOn))),
  );
}

function line({ text, logprob, isChosen }, goOn) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${Math.exp(logprob) * 100}%`;
  const name =
    text === null
      ? make("th", { scope: "row", text: "all others" })
      : make("th", { scope: "row" }, make("code", { class: "piece", text: visible(text) }));
  if (isChosen) name.append(make("span", { class: "help", text: " taken" }));
  return make(
    "tr",
    { class: isChosen ? "taken" : null },
    name,
    make("td", {}, make("span", { class: "amount", text: percent(logprob) }), bar),
    goOn ? make("td", {}, goOnButton(text, isChosen, goOn)) : null,
  );
}

function goOnButton(text, isChosen, goOn) {
  if (text === null || !canContinue(text)) return null;
  const words = isChosen ? "Write on from here again" : `Write on with ${visible(text)} instead`;
  return button("→", () => goOn(text), { class: "quiet", "aria-label": words, title: words });
}
