// The list of dialogs: open, rename, delete, export, import.

import { announce, at, button, download, make, notify } from "./dom.js";
import { exportMany, exportOne, fileName, importDialogs } from "./files.js";
import { dialogs, load, onChangeElsewhere, titleOf } from "./store.js";

export class DialogList {
  /**
   * @param {Chat} chat
   * @param {function()} chosen called when a person has chosen a dialog.
   */
  constructor(chat, chosen) {
    this.chat = chat;
    this.chosen = chosen;
    at("new-dialog").addEventListener("click", () => {
      chosen();
      chat.begin();
    });
    at("export-all").addEventListener("click", () => this.exportAll());
    at("export-one").addEventListener("click", () => this.exportOne());
    at("import").addEventListener("click", () => at("import-file").click());
    at("import-file").addEventListener("change", (event) => this.import(event.target));
    onChangeElsewhere((id) => {
      const { dialog } = chat;
      if ((!id || id === dialog.id) && !chat.isBusy()) chat.replace(load(dialog.id) ?? dialog);
      this.draw();
    });
  }

  /** Redraw the list; keeps the focus and a name that is being typed. */
  draw() {
    const list = at("dialog-list");
    if (list.querySelector("form")) return;
    const found = dialogs();
    const { key } = document.activeElement?.dataset ?? {};
    list.replaceChildren(...found.map((dialog) => this.entry(dialog)));
    if (key) this.focus(key);
    at("no-dialogs").hidden = found.length > 0;
    at("export-all").disabled = found.length === 0;
    at("export-one").disabled = this.chat.dialog.messages.length === 0;
  }

  focus(key) {
    at("dialog-list").querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  entry(dialog) {
    const title = titleOf(dialog);
    const isShown = dialog.id === this.chat.dialog.id;
    const tool = (mark, words, listener) =>
      button(mark, listener, {
        class: "quiet",
        "aria-label": `${words} “${title}”`,
        title: words,
        "data-key": `${words} ${dialog.id}`,
      });
    const item = make(
      "li",
      { class: isShown ? "shown" : null },
      button(make("span", { text: title }), () => this.open(dialog.id), {
        class: "dialog",
        dir: "auto",
        title,
        "aria-current": isShown ? "true" : null,
        "data-key": `Open ${dialog.id}`,
      }),
      tool("✎", "Rename", () => this.rename(item, dialog)),
      tool("✕", "Delete", () => this.delete(dialog)),
    );
    return item;
  }

  open(id) {
    const dialog = load(id);
    if (!dialog) {
      this.draw(); // another tab has deleted it
      return;
    }
    this.chosen();
    this.chat.open(dialog);
    this.draw();
    at("message").focus();
    announce(`Dialog ${titleOf(this.chat.dialog)}`);
  }

  rename(item, dialog) {
    const input = make("input", {
      type: "text",
      "aria-label": "The dialog's name",
      value: titleOf(dialog),
      maxlength: "120",
    });
    const back = () => {
      form.remove();
      this.draw();
      this.focus(`Rename ${dialog.id}`);
    };
    const done = () => {
      const target = this.chat.current(dialog);
      Object.assign(target, { title: input.value.trim(), named: Boolean(input.value.trim()) });
      this.chat.keep(target, { touch: false });
      if (target === this.chat.dialog) at("dialog-title").textContent = titleOf(target);
      back();
    };
    const form = make("form", { class: "joined" }, input, make("button", { text: "Save" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      done();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      back();
    });
    item.replaceChildren(form);
    input.focus();
    input.select();
  }

  delete(dialog) {
    const { chat } = this;
    const wasShown = chat.dialog.id === dialog.id;
    chat.delete(chat.current(dialog));
    this.draw();
    (wasShown ? at("message") : at("new-dialog")).focus();
  }

  exportOne() {
    const { dialog } = this.chat;
    download(fileName(dialog), exportOne(dialog));
  }

  exportAll() {
    download("llamakit-dialogs.json", exportMany(dialogs()));
  }

  async import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const found = importDialogs(await file.text());
      found.forEach((dialog) => this.chat.keep(dialog, { touch: false }));
      if (found.length) this.open(found[0].id);
      notify(found.length === 1 ? "One dialog imported." : `${found.length} dialogs imported.`);
    } catch (error) {
      notify(error.message);
    }
  }
}
