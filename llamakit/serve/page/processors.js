// The ordered list of processors within the settings.

import { announce, button, make } from "./dom.js";
import { fieldsOf, plain } from "./fields.js";

/**
 * Make the list, and what adds to it.
 * @param {object[]} entries the processors that the server has.
 * @param {object[]} chosen name and options of each, in order; changed in place.
 * @param {function()} changed called after each change.
 */
export function processorList(entries, chosen, changed) {
  const list = make("ol", { class: "processors", "aria-label": "Processors, in order" });
  const empty = make("p", { class: "help", text: "None: the sampler gets the model's logits unchanged." });
  const select = make(
    "select",
    { id: "add-processor" },
    ...entries.map(({ name }) => make("option", { value: name, text: name })),
  );
  const help = make("p", { class: "help" });
  const explain = () => {
    help.textContent = plain(entries.find(({ name }) => name === select.value)?.help ?? "");
  };
  select.addEventListener("change", explain);

  const redraw = () => {
    list.replaceChildren(...chosen.map((_, position) => card(position)));
    empty.hidden = chosen.length > 0;
  };
  const act = (words) => {
    redraw();
    announce(words);
    changed();
  };
  const focus = (position, kind) => {
    const wanted = list.children[position]?.querySelector(`[data-act=${kind}]:not(:disabled)`);
    (wanted ?? list.children[position]?.querySelector("button:not(:disabled)") ?? select).focus();
  };
  const move = (position, step) => {
    const [moved] = chosen.splice(position, 1);
    chosen.splice(position + step, 0, moved);
    act(`${moved.name} moved to position ${position + step + 1}`);
    focus(position + step, step < 0 ? "up" : "down");
  };
  const take = (position) => {
    const [taken] = chosen.splice(position, 1);
    act(`${taken.name} removed`);
    focus(Math.min(position, chosen.length - 1), "remove");
  };
  const add = () => {
    chosen.push({ name: select.value, options: {} });
    act(`${select.value} added at position ${chosen.length}`);
  };

  function card(position) {
    const { name, options } = chosen[position];
    const entry = entries.find((it) => it.name === name);
    const tool = (mark, kind, words, listener, disabled = false) =>
      button(mark, listener, {
        class: "quiet",
        "data-act": kind,
        "aria-label": `${words} ${name}`,
        title: words,
        disabled,
      });
    const last = position === chosen.length - 1;
    return make(
      "li",
      {},
      make(
        "div",
        { class: "card-head" },
        make("h4", { class: "identifier", text: name }),
        tool("↑", "up", "Move up", () => move(position, -1), position === 0),
        tool("↓", "down", "Move down", () => move(position, 1), last),
        tool("✕", "remove", "Remove", () => take(position)),
      ),
      make("p", { class: "help", text: plain(entry.summary || entry.help) }),
      ...fieldsOf(entry, options, changed),
    );
  }

  redraw();
  explain();
  return make(
    "div",
    {},
    make("h3", { text: "Processors" }),
    empty,
    list,
    make(
      "div",
      { class: "field" },
      make("label", { for: "add-processor", text: "Add a processor" }),
      make("div", { class: "joined" }, select, button("Add", add)),
      help,
    ),
  );
}
