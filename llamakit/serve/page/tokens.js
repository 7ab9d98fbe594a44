// Answers of either API as one kind of token: its text, its log-probability and its alternatives.

/**
 * What the model thought; `sampler` is what was left of that when the sampler drew, and null where
 * none has.
 * @typedef {{text: string, logprob: number}[]} Top the likeliest first
 * @typedef {{text: string, logprob: ?number, top: Top, sampler: ?{logprob: number, top: Top},
 *     isPrompt: boolean}} Token
 */

/** Return the tokens of one event of a completion. */
export function fromCompletion(choice) {
  const found = choice.logprobs;
  return (found?.tokens ?? []).map((text, position) => {
    const drawn = found.sampler_token_logprobs[position];
    return {
      text,
      logprob: found.token_logprobs[position],
      top: ranked(found.top_logprobs[position]),
      sampler:
        drawn === null
          ? null
          : { logprob: drawn, top: ranked(found.sampler_top_logprobs[position]) },
      isPrompt: drawn === null,
    };
  });
}

function ranked(byText) {
  return Object.entries(byText ?? {})
    .map(([text, logprob]) => ({ text, logprob }))
    .sort((one, other) => other.logprob - one.logprob);
}

/** Return the tokens of one event of a chat's answer. */
export function fromChat(choice) {
  const top = (entry) =>
    entry.top_logprobs.map(({ token, logprob }) => ({ text: token, logprob }));
  return (choice.logprobs?.content ?? []).map((entry) => ({
    text: entry.token,
    logprob: entry.logprob,
    top: top(entry),
    sampler: entry.sampler ? { logprob: entry.sampler.logprob, top: top(entry.sampler) } : null,
    isPrompt: false,
  }));
}

const LIMITS = [0.9, 0.5, 0.2, 0.05, 0.01];

/** Return which of the six colors a probability has; 0 is the likeliest. */
export function shade(probability) {
  const found = LIMITS.findIndex((limit) => probability >= limit);
  return found < 0 ? LIMITS.length : found;
}

/** Return the words for the six colors. */
export function shades() {
  const percents = LIMITS.map((limit) => `${limit * 100} %`);
  return [...percents.map((percent) => `≥ ${percent}`), `< ${percents.at(-1)}`];
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

/** Return whether a prompt can contain this text: not half a character, nor a special token. */
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
