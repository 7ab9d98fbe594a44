// The start: what the server is, then the parts of the page.

import { get, hasKey, setKey } from "./api.js";
import { Chat } from "./chat.js";
import { DialogList } from "./dialogs.js";
import { at, button, make } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { enterSends } from "./messages.js";
import { Panels } from "./panels.js";
import { Probabilities } from "./probabilities.js";
import { toEnd } from "./scroller.js";
import { Settings } from "./settings.js";
import { kept, load } from "./store.js";
import { Tabs } from "./tabs.js";

let isBuilt = false;

/** Ask the server what it is, then build the page; ask for a key where it wants one. */
async function start() {
  try {
    const description = await get("v1/llamakit/options");
    at("notice").replaceChildren();
    at("change-key").hidden = !hasKey();
    if (!isBuilt) build(description);
    isBuilt = true;
  } catch (error) {
    at("notice").replaceChildren(make("p", { role: "alert", text: error.message }));
    if (error.status === 401) {
      at("notice").append(button("Enter a key", () => askForKey(error.message)));
      askForKey(error.message);
    } else if (error.isPassing) {
      at("notice").append(button("Try again", start));
    }
  }
}

function askForKey(words) {
  at("key-words").textContent = words;
  at("key").value = "";
  at("key-dialog").showModal();
  at("key").focus();
}

function build(description) {
  describe(description);
  const tabs = new Tabs(["chat", "probabilities"]);
  const panels = new Panels(["dialogs", "settings"]);
  const settings = new Settings(description);
  const refused = () => askForKey("The server does not accept this API key.");
  const chat = new Chat(settings, { changed: () => list.draw(), refused });
  const probabilities = new Probabilities(settings, { refused });
  const chosen = () => {
    tabs.show("chat");
    panels.closeIfNarrow();
  };
  const list = new DialogList(chat, chosen);
  const shown = load(kept("open"));
  if (shown) chat.open(shown);
  else chat.begin();
  list.draw();
  listenToKeys({ tabs, panels, chat, probabilities, begin: () => at("new-dialog").click() });
  at("frame").hidden = false;
  toEnd();
  if (enterSends()) at("message").focus(); // on a phone it would raise the keyboard
}

function describe({ model, context, dtype, device, ranks, version }) {
  at("model").textContent = model;
  document.title = `${model} · llamakit`;
  const split = ranks > 1 ? ` on ${ranks} ranks` : "";
  at("facts").textContent = `context ${context} · ${dtype} · ${device}${split} · llamakit ${version}`;
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!/^[!-~]+$/.test(at("key").value.trim())) {
    at("key-words").textContent = "A key consists of ASCII letters, digits and signs, without spaces.";
    return;
  }
  setKey(at("key").value);
  at("key-dialog").close();
  start();
});
at("key-cancel").addEventListener("click", () => at("key-dialog").close());
at("change-key").addEventListener("click", () => askForKey("Use another key in this tab:"));
start();
