// The tab of probabilities: a generated text whose tokens show how likely they were.

import { stream } from "./api.js";
import { chatFields, requestFields, words } from "./choices.js";
import { announce, at, make, notify, short, swap } from "./dom.js";
import { inspect } from "./inspector.js";
import { sends } from "./messages.js";
import { fromChat, fromCompletion, percent, shade, shades, summary } from "./tokens.js";
import { keep, kept } from "./store.js";

const LONGEST_WORD = 8; // tokens that are kept on one line

export class Probabilities {
  /**
   * @param {Settings} settings
   * @param {{refused: function()}} tell the server does not accept the key.
   */
  constructor(settings, tell) {
    this.settings = settings;
    this.tell = tell;
    this.tokens = [];
    this.prompt = "";
    this.current = -1;
    this.run = null;
    const most = settings.description.limits;
    at("p-alternatives").max = String(most.top_logprobs);
    at("p-length").max = String(most.new_tokens);
    at("p-prompt").value = kept("prompt") || "Once upon a time";
    at("p-legend").replaceChildren(
      ...shades().map((text, number) => make("li", { class: `token shade-${number}`, text })),
    );
    this.listen();
    this.showKind();
  }

  listen() {
    at("p-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.write(at("p-prompt").value);
    });
    at("p-prompt").addEventListener("keydown", (event) => {
      if (!sends(event)) return;
      event.preventDefault();
      at("p-form").requestSubmit();
    });
    at("p-stop").addEventListener("click", () => this.stop());
    at("p-kind").addEventListener("change", () => this.showKind());
    at("p-colors").addEventListener("change", () => this.color());
    at("p-tokens").addEventListener("click", ({ target }) => this.choose(positionOf(target)));
    at("p-tokens").addEventListener("focusin", ({ target }) => this.choose(positionOf(target)));
    at("p-tokens").addEventListener("keydown", (event) => this.walk(event));
  }

  get isChat() {
    return at("p-kind").value === "chat";
  }

  showKind() {
    at("p-echo").disabled = this.isChat;
  }

  /** End what is being written. Returns whether there is something. */
  stop() {
    this.run?.abort();
    return this.run !== null;
  }

  /** Generate a new text from a prompt. */
  async write(prompt) {
    this.stop();
    if (!prompt) return;
    const run = new AbortController();
    this.run = run;
    keep("prompt", prompt);
    const asked = this.alternatives();
    const wasChat = this.isChat;
    Object.assign(this, { tokens: [], prompt, wasChat, asked, current: -1, word: null });
    at("p-tokens").replaceChildren();
    at("p-inspector").replaceChildren();
    at("p-trouble").replaceChildren();
    this.busy(true);
    let failed = null;
    try {
      await this.follow(prompt, run.signal);
    } catch (error) {
      if (!run.signal.aborted) failed = error;
    }
    if (this.run !== run) return; // another one has begun
    this.run = null;
    this.busy(false);
    this.finish(failed);
  }

  async follow(prompt, signal) {
    const [path, body] = this.isChat ? this.chatRequest(prompt) : this.rawRequest(prompt);
    const began = performance.now();
    for await (const event of stream(path, body, signal)) {
      const [choice] = event.choices;
      if (!choice) continue;
      this.add(body.messages ? fromChat(choice) : fromCompletion(choice));
      const seconds = (performance.now() - began) / 1000;
      const count = this.tokens.filter(({ isPrompt }) => !isPrompt).length;
      at("p-summary").textContent = `${count} tokens · ${short(count / seconds)} tokens/s`;
    }
  }

  rawRequest(prompt) {
    const body = {
      prompt,
      max_tokens: at("p-length").valueAsNumber || 64,
      logprobs: this.alternatives(),
      sampler_logprobs: true,
      echo: at("p-echo").checked,
      ...requestFields(this.settings.choices),
    };
    return ["v1/completions", body];
  }

  chatRequest(prompt) {
    const body = {
      messages: [{ role: "user", content: prompt }],
      logprobs: true,
      top_logprobs: this.alternatives(),
      sampler_logprobs: true,
      ...requestFields(this.settings.choices),
      ...chatFields(this.settings.choices),
      max_tokens: at("p-length").valueAsNumber || 64,
    };
    return ["v1/chat/completions", body];
  }

  alternatives() {
    const { valueAsNumber, max } = at("p-alternatives");
    return Math.max(1, Math.min(valueAsNumber || 5, Number(max)));
  }

  busy(isBusy) {
    if (isBusy) swap(at("p-stop"), at("p-write"));
    else swap(at("p-write"), at("p-stop"));
    at("p-tokens").setAttribute("aria-busy", String(isBusy));
  }

  finish(failed) {
    const found = summary(this.tokens.filter(({ isPrompt }) => !isPrompt));
    if (found) {
      const share =
        found.likeliest === null
          ? ""
          : ` · ${(found.likeliest * 100).toFixed(0)} % most likely`;
      const about = words(this.settings.choices);
      at("p-summary").textContent =
        `${found.tokens} tokens · perplexity ${short(found.perplexity)}${share}` +
        (about ? ` · ${about}` : "");
      announce(`Done: ${at("p-summary").textContent}`);
    } else {
      at("p-summary").textContent = "";
    }
    if (failed) at("p-trouble").append(make("p", { role: "alert", text: failed.message }));
    if (failed?.status === 401) this.tell.refused();
  }

  add(tokens) {
    for (const token of tokens) {
      const position = this.tokens.push(token) - 1;
      if (!this.word || /^\s/.test(token.text) || this.word.childElementCount >= LONGEST_WORD) {
        this.word = make("span", { class: "word" });
        at("p-tokens").append(this.word);
      }
      this.word.append(tokenButton(token, position, this.shown(token)));
      if (token.text.includes("\n")) {
        at("p-tokens").append(make("br"));
        this.word = null;
      }
    }
  }

  /** Return the log-probability that the colors show of a token; null is none. */
  shown(token) {
    return at("p-colors").value === "model" ? token.logprob : (token.sampler?.logprob ?? null);
  }

  /** Color all tokens again. */
  color() {
    const buttons = at("p-tokens").querySelectorAll("button");
    this.tokens.forEach((token, position) => {
      const { className, title, ariaLabel } = tokenButton(token, position, this.shown(token));
      Object.assign(buttons[position], { className, title, ariaLabel });
    });
  }

  /** Show what is known of a token. */
  choose(position) {
    if (position < 0 || position === this.current) return;
    const buttons = at("p-tokens").querySelectorAll("button");
    buttons[this.current]?.removeAttribute("aria-current");
    this.current = position;
    for (const one of buttons) one.tabIndex = -1;
    buttons[position].tabIndex = 0;
    buttons[position].setAttribute("aria-current", "true");
    const token = this.tokens[position];
    const go = this.wasChat ? null : (text) => this.continueWith(position, text);
    at("p-inspector").replaceChildren(...inspect(token, position, this.asked, go));
  }

  /** Continue with another token in the place of one. */
  continueWith(position, text) {
    const before = this.tokens.slice(0, position).filter(({ isPrompt }) => !isPrompt);
    const prompt = this.prompt + before.map((token) => token.text).join("") + text;
    at("p-prompt").value = prompt;
    notify("The prompt now ends with that token.");
    this.write(prompt);
    at("p-prompt").focus();
  }

  /** Arrow keys go from token to token. */
  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || !this.tokens.length) return;
    event.preventDefault();
    const position = Math.max(0, Math.min(this.tokens.length - 1, this.current + step));
    at("p-tokens").querySelectorAll("button")[position].focus();
  }
}

function tokenButton(token, position, logprob) {
  const known = logprob !== null;
  const color = known ? `shade-${shade(Math.exp(logprob))}` : "unknown";
  const said = known ? percent(logprob) : "not known";
  const kind = token.isPrompt ? " prompt" : "";
  return make("button", {
    type: "button",
    class: `token ${color}${kind}`,
    "data-position": String(position),
    tabindex: position === 0 ? "0" : "-1",
    title: said,
    "aria-label": `${token.text.trim() || "space"}, ${said}`,
    text: token.text.replaceAll("\n", "↵") || "∅",
  });
}

function positionOf(target) {
  return Number(target.closest("[data-position]")?.dataset.position ?? -1);
}
