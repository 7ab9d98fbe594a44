// The settings: how the next token is chosen, built from what the server's plugins declare.

import { defaults, tidy } from "./choices.js";
import { at, announce, make, notify } from "./dom.js";
import { fieldsOf, number, plain } from "./fields.js";
import { processorList } from "./processors.js";
import { loadSettings, saveSettings } from "./store.js";

const MODES = {
  simple: "Temperature and top-p",
  plugins: "Sampler and processors",
  server: "Defaults of the server",
};

/** The form of the settings; `choices` is what it says now. */
export class Settings {
  constructor(description) {
    this.description = description;
    const [choices, missing] = tidy(loadSettings(), description);
    this.choices = choices;
    if (missing.length) {
      notify(`This server has no ${missing.join(", ")}: removed from the settings.`);
    }
    /** Called after each change; the chat puts its own here. */
    this.changed = () => {};
    at("reset").addEventListener("click", () => this.reset());
    this.draw();
  }

  /** Go back to what the server does when nothing is said. */
  reset() {
    this.choices = defaults(this.description);
    this.keep();
    this.draw();
    announce("The settings are reset to the defaults");
  }

  keep() {
    this.changed();
    try {
      saveSettings(this.choices);
    } catch (error) {
      notify(error.message);
    }
  }

  draw() {
    at("settings-form").replaceChildren(
      this.select("mode", "Choose tokens by", Object.entries(MODES), () => this.drawChosen()),
      make("div", { id: "chosen" }),
      make("h3", { text: "Answers" }),
      this.select("format", "Prompt format", names(this.description.prompt_formats), () =>
        this.drawFormat(),
      ),
      make("div", { id: "format-options" }),
      this.whole("maxTokens", "Max tokens", {
        least: 1,
        most: this.description.limits.new_tokens,
        empty: "Default of the server",
      }),
      this.whole("seed", "Seed", {
        least: 0,
        most: Number.MAX_SAFE_INTEGER,
        empty: "Random",
      }),
    );
    this.drawChosen();
    this.drawFormat();
  }

  drawChosen() {
    const { choices, description } = this;
    const parts = [];
    if (choices.mode === "simple") {
      parts.push(
        this.slider("temperature", "Temperature", 2, "0 always takes the most likely token."),
        this.slider("topP", "Top-p", 1, "Sample from the most likely tokens whose probabilities add up to this."),
      );
    } else if (choices.mode === "plugins") {
      parts.push(
        this.select("sampler", "Sampler", names(description.samplers), () => this.drawChosen()),
        ...this.options("samplers", choices.sampler),
        processorList(description.processors, choices.processors, () => this.keep()),
      );
    }
    const focused = document.activeElement?.id;
    at("chosen").replaceChildren(...parts);
    if (focused) at(focused)?.focus(); // the field that was just used was rebuilt
  }

  drawFormat() {
    at("format-options").replaceChildren(...this.options("formats", this.choices.format));
  }

  /** Make the help and the options of the sampler or prompt format that is chosen. */
  options(kind, name) {
    const entries = this.description[kind === "formats" ? "prompt_formats" : kind];
    const entry = entries.find((it) => it.name === name);
    this.choices[kind][name] ??= {};
    const from = entry.package ? ` From the package ${entry.package}.` : "";
    return [
      make("p", { class: "help", text: plain(entry.summary || entry.help) + from }),
      ...fieldsOf(entry, this.choices[kind][name], () => this.keep()),
    ];
  }

  select(name, label, pairs, changed) {
    const id = `setting-${name}`;
    const options = pairs.map(([value, text]) => make("option", { value, text }));
    const select = make("select", { id }, ...options);
    select.value = this.choices[name];
    select.addEventListener("change", () => {
      this.choices[name] = select.value;
      this.keep();
      changed();
    });
    return make("div", { class: "field" }, make("label", { for: id, text: label }), select);
  }

  slider(name, label, most, help) {
    const id = `setting-${name}`;
    const value = this.choices[name];
    const output = make("output", { for: id, text: String(value) });
    const range = make("input", {
      type: "range",
      id,
      min: "0",
      max: String(Math.max(most, value)),
      step: "0.01",
      value,
      "aria-describedby": `${id}-help`,
    });
    range.addEventListener("input", () => {
      this.choices[name] = range.valueAsNumber;
      output.textContent = range.value;
      this.keep();
    });
    return make(
      "div",
      { class: "field" },
      make("div", { class: "spread" }, make("label", { for: id, text: label }), output),
      range,
      make("p", { class: "help", id: `${id}-help`, text: help }),
    );
  }

  whole(name, label, bounds) {
    const id = `setting-${name}`;
    const value = this.choices[name];
    const input = number({ whole: true, none: true, value, ...bounds }, (given) => {
      this.choices[name] = given;
      this.keep();
    });
    input.id = id;
    return make("div", { class: "field" }, make("label", { for: id, text: label }), input);
  }
}

function names(entries) {
  return entries.map(({ name }) => [name, name]);
}
