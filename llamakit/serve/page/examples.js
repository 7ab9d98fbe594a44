// What somebody may ask who has just come to an empty dialog.

import { at, button, make } from "./dom.js";

const OF_THE_DEMO = [
  "How do I verify a checkpoint?",
  "What is a shard?",
  "Tell me a story about a cat.",
  "How do I run the 70B model?",
];
const OF_ANY_MODEL = [
  "Explain what a KV cache is, in three sentences.",
  "Write a Python function that merges two sorted lists.",
  "Compare TCP and UDP in a table.",
  "Tell me a short story about a lighthouse.",
];

/** Offer questions that a model can be asked; the bundled demo model knows little. */
export function offerExamples(model, ask) {
  const examples = /(^|-)demo$/.test(model) ? OF_THE_DEMO : OF_ANY_MODEL;
  at("examples").replaceChildren(
    ...examples.map((text) => make("li", {}, button(text, () => ask(text), { class: "example" }))),
  );
}
