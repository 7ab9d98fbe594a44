// What went wrong with a dialog, and what may help: nothing that can only fail again.

import { at, button, make } from "./dom.js";

let offering = 0;

/** Say what went wrong, or nothing. */
export function sayTrouble(error) {
  at("trouble").replaceChildren();
  if (error) at("trouble").append(make("p", { role: "alert", text: error.message }));
}

/**
 * Where a question has no answer, offer what may lead to one.
 * @param {?ApiError} error why there is none, if it was asked for.
 * @param {{answer: function(), edit: function(), enterKey: function(), mayRetry: function(ApiError)}}
 *     acts
 */
export function offerAnswer(error, acts) {
  const wait = Math.max(0, (error?.until ?? 0) - Date.now());
  clearOffer();
  if (!error) {
    at("offer").append(button("Get an answer", acts.answer));
  } else if (error.status === 401) {
    at("offer").append(button("Enter a key", acts.enterKey));
  } else if (acts.mayRetry(error)) {
    at("offer").append(button("Try again", acts.answer, { disabled: wait > 0 }));
    if (wait) offering = setTimeout(() => offerAnswer(error, acts), wait);
  } else if (error.param && error.param !== "messages") {
    at("offer").append(button("Change the settings", toSettings));
  } else {
    at("offer").append(button("Edit your message", acts.edit));
  }
}

function toSettings() {
  if (at("settings").hidden) at("toggle-settings").click();
  else at("settings").querySelector("select").focus();
}

/** Offer nothing. */
export function clearOffer() {
  clearTimeout(offering);
  at("offer").replaceChildren();
}
