// What a person has chosen about the next token, as a value: defaults, checks, and the fields of a
// request that it becomes.

const LONGEST_VALUE = 30; // characters of an option, where a few words say what is chosen

/** Return what is chosen before anybody has chosen anything. */
export function defaults(description) {
  const { temperature, top_p: topP, sampler, prompt_format: format } = description.defaults;
  return {
    mode: sampler ? "server" : "simple",
    temperature,
    topP,
    sampler: (description.samplers.find((it) => it.name === "draw") ?? description.samplers[0]).name,
    samplers: {},
    processors: [],
    format,
    formats: {},
    seed: null,
    maxTokens: null,
  };
}

/**
 * Return what was kept, without what this server does not have.
 * @returns {[object, string[]]} the choices, and the names that were left out.
 */
export function tidy(kept, description) {
  const choices = sane(kept, defaults(description));
  const missing = [];
  const has = (kind, name) => description[kind].some((entry) => entry.name === name);
  if (!has("samplers", choices.sampler)) {
    missing.push(choices.sampler);
    choices.sampler = defaults(description).sampler;
  }
  choices.processors = choices.processors.filter((it) => {
    if (!has("processors", it?.name)) missing.push(it?.name);
    else it.options ??= {};
    return has("processors", it?.name);
  });
  if (!has("prompt_formats", choices.format)) {
    missing.push(choices.format);
    choices.format = description.defaults.prompt_format;
  }
  return [choices, missing];
}

/** Return what was kept as far as it has the types that it should have. */
function sane(kept, basic) {
  const kind = (value) => (Array.isArray(value) ? "list" : value === null ? "number" : typeof value);
  const fits = ([name, value]) => name in basic && kind(value) === kind(basic[name]);
  return { ...basic, ...Object.fromEntries(Object.entries(kept).filter(fits)) };
}

/** Return the fields of a request for either kind of answer. */
export function requestFields(choices) {
  const fields = {};
  if (choices.mode === "simple") {
    fields.temperature = choices.temperature;
    fields.top_p = choices.topP;
  } else if (choices.mode === "plugins") {
    fields.sampler = choices.sampler;
    fields.sampler_options = choices.samplers[choices.sampler] ?? {};
    if (choices.processors.length) fields.processors = choices.processors;
  }
  if (choices.seed !== null) fields.seed = choices.seed;
  return fields;
}

/** Return the fields that only a chat's request has. */
export function chatFields(choices) {
  const name = choices.format;
  const fields = { prompt_format: { name, options: choices.formats[name] ?? {} } };
  if (choices.maxTokens !== null) fields.max_tokens = choices.maxTokens;
  return fields;
}

/** Say in a few words how the next token is chosen. */
export function words(choices) {
  const parts = [];
  if (choices.mode === "simple") {
    parts.push(`temperature ${choices.temperature}`, `top-p ${choices.topP}`);
  } else if (choices.mode === "plugins") {
    parts.push(...choices.processors.map(({ name, options }) => spell(name, options)));
    parts.push(spell(choices.sampler, choices.samplers[choices.sampler] ?? {}));
  }
  if (choices.seed !== null) parts.push(`seed ${choices.seed}`);
  return parts.join(" · ");
}

function brief(text) {
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE - 1)}…` : text;
}

function spell(name, options) {
  const pairs = Object.entries(options).map(([key, value]) => `${key}=${brief(String(value))}`);
  return pairs.length ? `${name} (${pairs.join(", ")})` : name;
}
