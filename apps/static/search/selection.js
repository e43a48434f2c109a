// What is chosen, and the bar that says what can be done with it.
import { all, button, counted, download, make, one, prompt, toast } from "./dom.js";
import { FAVOURITES, moved } from "./question.js";
import { post } from "./server.js";


export class Selection {
  // page: { grid, question(), facts(), ask(question), refresh(), warn(error) }
  constructor(bar, page) {
    this.bar = bar;
    this.page = page;
    this.ids = new Set();
    this.anchor = 0;
    this.#build();
  }

  get list() { return [...this.ids]; }

  toggle(index, { isRange }) {
    const rows = this.page.grid.rows;
    if (!rows[index]) return;
    if (isRange) {
      const [from, to] = [Math.min(this.anchor, index), Math.max(this.anchor, index)];
      for (const row of rows.slice(from, to + 1)) this.ids.add(row.id);
    } else {
      const { id } = rows[index];
      if (this.ids.has(id)) this.ids.delete(id); else this.ids.add(id);
      this.anchor = index;
    }
    this.show();
  }

  all() {
    if (this.page.grid.isSkeleton) return;
    for (const row of this.page.grid.rows) this.ids.add(row.id);
    this.show();
    if (this.page.hasMore) toast("Those that are listed so far are chosen: scroll to the end for all.");
  }

  set(ids) {
    this.ids = new Set(ids);
    this.anchor = 0;
    this.show();
  }

  clear() { this.set([]); }

  show() {
    this.page.grid.mark(this.ids);
    this.bar.hidden = !this.ids.size;
    one(".ck-chosen-count", this.bar).textContent = `${counted(this.ids.size, "picture")} chosen`;
    const { is_local: isLocal } = this.page.facts();
    for (const node of all("[data-local]", this.bar)) node.hidden = !isLocal;
    one("[data-album]", this.bar).hidden = !this.page.question().album;
    document.body.classList.toggle("ck-has-chosen", this.ids.size > 0);
  }

  #build() {
    const add = (label, press, attributes = {}) => this.bar.append(button("ck-button", label, press, attributes));
    this.bar.append(
      button("ck-button ck-clear", "×", () => this.clear(), { "aria-label": "choose none", title: "Esc" }),
      make("span", "ck-chosen-count", "", { role: "status" }),
    );
    add("More like these", () => this.#move("more"));
    add("Less like these", () => this.#move("less"));
    add("★ Favourite", () => this.act({ action: "album", album: FAVOURITES }));
    add("Album …", () => this.#album());
    add("Label …", () => this.#label());
    add("Take out of the album", () => this.#takeOut(), { "data-album": "" });
    add("Tag …", () => this.#tag(), { "data-local": "" });
    add("Copy …", () => this.#folder("copy", "Copy to a folder"), { "data-local": "" });
    add("Move …", () => this.#folder("move", "Move to a folder"), { "data-local": "" });
    add("Table (CSV)", () => this.save("csv"));
    add("Contact sheet", () => this.save("sheet"));
    add("Zip", () => this.save("zip"));
    this.bar.hidden = true;
  }

  #move(kind) {
    const ids = this.list;
    this.clear();
    this.page.ask(moved(this.page.question(), kind, ids));
  }

  async #album() {
    const names = this.page.library().albums.map(({ name }) => name);
    const name = await prompt("Put into an album", { placeholder: "holiday", hint: "A new name makes a new album.", ok: "Put in", suggestions: names });
    if (name) await this.act({ action: "album", album: name });
  }

  async #label() {
    const { classes } = this.page.facts();
    const hint = classes.length ? "One of the classes that you have sorted by; the Classify tab learns from labels."
      : "Sort by some classes in the Classify tab first; labels are what it learns from.";
    const label = await prompt("Label", { placeholder: classes[0] || "cat", hint, ok: "Label", suggestions: classes });
    if (label) await this.act({ action: "label", label });
  }

  async #takeOut() {
    const question = this.page.question();
    if (!await this.act({ action: "unalbum", album: question.album })) return;
    this.clear();
    if (this.page.library().albums.some(({ name }) => name === question.album)) await this.page.refresh({ again: true });
    else await this.page.ask({ ...question, album: "" }); // an empty one is gone
  }

  async #tag() {
    const hint = "Written into a sidecar file (.xmp) beside each picture, never into the picture.";
    const tags = await prompt("Tags, between commas", { placeholder: "beach, family", hint, ok: "Tag" });
    if (tags) await this.act({ action: "tag", tags });
  }

  async #folder(action, title) {
    const folder = await prompt(title, { placeholder: "~/found", hint: "Nothing is overwritten.", ok: title.split(" ")[0] });
    if (!folder) return;
    const ids = new Set(this.ids);
    const said = await this.act({ action, folder });
    if (said?.undo && action === "move") {
      this.page.grid.remove(ids);
      this.clear();
    }
  }

  async act(what, ids = this.list) {
    try {
      const said = await post("act", { library: this.page.question().library, ids, ...what });
      toast(said.said, said.undo ? () => this.undo(said.undo) : null);
      if (said.undo && what.action !== "copy") await this.page.refresh();
      return said;
    } catch (error) {
      this.page.warn(error);
      return null;
    }
  }

  async undo(token) {
    try {
      toast((await post("undo", { undo: token })).said);
      await this.page.refresh({ again: true });
    } catch (error) { this.page.warn(error); }
  }

  async save(action, ids = this.list) {
    try {
      const question = this.page.toServer();
      const done = await post("act", { ...question, action, ids });
      download(done.download);
      if (done.said) toast(done.said);
    } catch (error) { this.page.warn(error); }
  }
}
