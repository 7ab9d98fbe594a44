// Answers of either API as one kind of token: its text, its log-probability and its alternatives.

/**
 * @typedef {{text: string, logprob: ?number, top: {text: string, logprob: number}[],
 *     isPrompt: boolean}} Token
 */

/** Return the tokens of one event of a completion. */
export function fromCompletion(choice, isPrompt) {
  const found = choice.logprobs;
  return (found?.tokens ?? []).map((text, position) => ({
    text,
    logprob: found.token_logprobs[position],
    top: Object.entries(found.top_logprobs[position] ?? {})
      .map(([other, logprob]) => ({ text: other, logprob }))
      .sort((one, other) => other.logprob - one.logprob),
    isPrompt: isPrompt && !found.top_logprobs[position],
  }));
}

/** Return the tokens of one event of a chat's answer. */
export function fromChat(choice) {
  return (choice.logprobs?.content ?? []).map(({ token, logprob, top_logprobs: top }) => ({
    text: token,
    logprob,
    top: top.map((other) => ({ text: other.token, logprob: other.logprob })),
    isPrompt: false,
  }));
}

const LIMITS = [0.9, 0.5, 0.2, 0.05, 0.01];

/** Return which of the six colours a probability has; 0 is the likeliest. */
export function shade(probability) {
  const found = LIMITS.findIndex((limit) => probability >= limit);
  return found < 0 ? LIMITS.length : found;
}

/** Return the words for the six colours. */
export function shades() {
  const percents = LIMITS.map((limit) => `${limit * 100} %`);
  return [...percents.map((percent) => `from ${percent}`), `below ${percents.at(-1)}`];
}

/** Write a probability. */
export function percent(logprob) {
  const value = Math.exp(logprob) * 100;
  if (value >= 99.95) return value >= 100 ? "100 %" : "> 99.9 %";
  if (value >= 10) return `${value.toFixed(1)} %`;
  if (value >= 0.01) return `${value.toPrecision(2)} %`;
  return "< 0.01 %";
}

/** Write a token so that spaces and line ends are seen. */
export function visible(text) {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";
}

/** Tell whether a text is one that a prompt can hold: half a character or a mark is none. */
export function canContinue(text) {
  return text !== "" && !text.includes("\ufffd") && !/^<\d+>$/.test(text);
}

/** Say how surprising tokens were on the whole, or null where nothing is known. */
export function summary(tokens) {
  const known = tokens.filter(({ logprob }) => logprob !== null);
  if (!known.length) return null;
  const mean = known.reduce((sum, { logprob }) => sum + logprob, 0) / known.length;
  const first = known.filter(({ logprob, top }) => top.length && logprob >= top[0].logprob - 1e-6);
  const asked = known.filter(({ top }) => top.length);
  return {
    tokens: tokens.length,
    perplexity: Math.exp(-mean),
    likeliest: asked.length ? first.length / asked.length : null,
  };
}
