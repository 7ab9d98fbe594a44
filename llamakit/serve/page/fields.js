// A form's field for one option that a plugin declares.

import { freshId, make } from "./dom.js";

/**
 * Make the fields of a plugin's options.
 * @param {object} entry a sampler, processor or prompt format as the server describes it.
 * @param {object} values those that are not the default, by name; changed in place.
 * @param {function()} changed called after each change.
 */
export function fieldsOf(entry, values, changed) {
  return entry.options.map((option) =>
    field(option, values[option.name], (value) => {
      if (value === undefined) delete values[option.name];
      else values[option.name] = value;
      changed();
    }),
  );
}

/** Make a field with its label and its help; the listener gets undefined for the default. */
export function field(option, value, listener) {
  const id = freshId("option");
  const shown = value === undefined ? option.default : value;
  const send = (given) => listener(given === option.default ? undefined : given);
  const control = controlOf(option, shown, send);
  control.id = id;
  if (option.description) control.setAttribute("aria-describedby", `${id}-help`);
  const label = make("label", { for: id, class: "identifier", text: option.name });
  const help = option.description
    ? make("p", { class: "help", id: `${id}-help`, text: plain(option.description) })
    : null;
  const row = make("div", { class: control.type === "checkbox" ? "field tick" : "field" });
  row.append(label, control, ...(help ? [help] : []));
  return row;
}

/** Write a plugin's help as the page writes: docstrings mark code, and some begin in lower case. */
export function plain(text) {
  const words = text.replaceAll("`", "").trim();
  const end = !words || /[.!?…:)]$/.test(words) ? "" : ".";
  return words.charAt(0).toUpperCase() + words.slice(1) + end;
}

function controlOf(option, value, send) {
  const kinds = [option.type ?? []].flat();
  if (option.enum) return choice(option.enum, value, send);
  if (kinds.length === 1 && kinds[0] === "boolean") return tick(value, send);
  const numbers = kinds.filter((kind) => kind === "number" || kind === "integer");
  const others = kinds.filter((kind) => !numbers.includes(kind) && kind !== "null");
  if (numbers.length && !others.length) {
    return number({ whole: numbers.includes("integer"), value, none: kinds.includes("null") }, send);
  }
  return words(value, kinds.includes("null"), send);
}

function tick(value, send) {
  return make("input", {
    type: "checkbox",
    checked: Boolean(value),
    on: { change: (event) => send(event.target.checked) },
  });
}

function choice(values, value, send) {
  const options = values.map((it, position) =>
    make("option", { value: String(position), text: it === null ? "None" : String(it) }),
  );
  const select = make("select", {}, ...options);
  select.value = String(values.indexOf(value));
  select.addEventListener("change", () => send(values[Number(select.value)]));
  return select;
}

/**
 * Make a field for a number; an empty one means none or the default.
 * @param {{whole: boolean, value: ?number, none: boolean, least: number=, most: number=,
 *     empty: string=}} what
 */
export function number({ whole, value, none, least, most, empty }, send) {
  const input = make("input", {
    type: "number",
    step: whole ? "1" : "any",
    inputmode: whole ? "numeric" : "decimal",
    min: least,
    max: most,
    placeholder: empty ?? (none ? "None" : "Default"),
    value: value ?? "",
  });
  input.addEventListener("input", () => {
    input.setAttribute("aria-invalid", String(!input.checkValidity()));
    if (!input.checkValidity()) return;
    if (input.value === "") send(none ? null : undefined);
    else send(input.valueAsNumber);
  });
  return input;
}

function words(value, none, send) {
  return make("input", {
    type: "text",
    value: value ?? "",
    placeholder: none ? "None" : null,
    autocomplete: "off",
    spellcheck: "false",
    on: { input: ({ target }) => send(none && target.value === "" ? null : target.value) },
  });
}
