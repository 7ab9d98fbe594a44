// The part of the chat that scrolls: it follows an answer while its end is in view.

import { at } from "./dom.js";

const NEAR = 80; // pixels from the end within which the view follows an answer

export function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = at("scroller");
  return scrollHeight - scrollTop - clientHeight < NEAR;
}

export function toEnd() {
  at("scroller").scrollTop = at("scroller").scrollHeight;
}
