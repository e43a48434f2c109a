// The search view: one question, one wall of pictures, and everything that leads from one question to the next.
import { button, debounced, make, one, toast } from "./dom.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { Runs, Scrubber, albums, covers, emptyNote } from "./home.js";
import { Imagine } from "./imagine.js";
import { Lightbox } from "./lightbox.js";
import { EMPTY, fromAddress, isSearch, toAddress, toServer } from "./question.js";
import { Selection } from "./selection.js";
import { Refused, get, post, upload } from "./server.js";

const FIRST = 200; // pictures of the first answer; the rest follows when it is looked at
const REST = 5000; // of a search; later parts are compared anew from the first picture on
const REST_OF_LIBRARY = 50000; // which is only listed
const CALM_MS = 800; // after a library is shown; then all of it is fetched, for its scroll bar and its rail of dates
const TYPING_MS = 300;
const AGAIN_MS = 2000; // after a part that did not come; then scrolling asks for it again
const SETTLED_MS = 1500; // after typing; then it is a search that Back leads to
const SETTLE_MS = 2000; // in which a window is brought back to where it was
const MOST_KEPT = 5000; // chosen pictures that a step of the history remembers; browsers take only so much
const LARGEST_DROP = 20 * 1024 * 1024; // bytes: what the server takes
const RECENT = "clipkit-history";
const MOST_RECENT = 12;

class Page {
  constructor(root) {
    this.root = root;
    this.asked = { ...EMPTY };
    this.wanted = this.asked;
    this.cleanWords = "";
    this.libraries = [];
    this.said = { is_local: false, types: [] };
    this.turn = 0;
    this.next = 0;
    this.hasMore = false;
    this.aborter = null;
    this.isTyped = false; // the words changed, and the history does not know it yet
    this.#find();
    this.grid = new Grid(this.wall, {
      open: (index) => this.lightbox.open(index),
      toggle: (index, how) => this.selection.toggle(index, how),
      near: () => this.more(),
    });
    this.selection = new Selection(one(".ck-chosen-bar", root), this);
    this.lightbox = new Lightbox(this);
    this.filters = new Filters(this.drawer, (question) => this.ask(question), () => this.asked);
    this.imagine = new Imagine(one(".ck-imagine", root), this);
    this.scrubber = new Scrubber(one(".ck-scrubber", root), this.grid, (when) => this.#jump(when));
    this.runs = new Runs(one(".ck-runs", root), (libraries) => this.#changed(libraries));
    this.#connect();
  }

  question() { return this.asked; }
  empty() { return { ...EMPTY, library: this.asked.library }; }
  facts() { return this.said; }
  toServer() { return toServer(this.asked); }
  library() { return this.libraries.find(({ key }) => key === this.asked.library) || { albums: [], searches: [], folders: [], kinds: [] }; }

  #find() {
    const part = (name) => one(`.${name}`, this.root);
    this.box = one("#ck-box", this.root);
    this.file = one("#ck-file", this.root);
    this.wall = one(".ck-wall", this.root);
    this.drawer = part("ck-drawer");
    this.chips = part("ck-chips");
    this.headline = part("ck-headline");
    this.note = part("ck-nothing-here");
    this.recent = part("ck-recent");
  }

  #connect() {
    const typed = debounced(() => this.#type(), TYPING_MS);
    this.settle = debounced(() => this.#remember(), SETTLED_MS);
    this.box.addEventListener("input", () => { this.settle.cancel(); typed(); });
    one("form", this.root).addEventListener("submit", (event) => {
      event.preventDefault();
      typed.cancel();
      if (this.box.value.trim() === this.wanted.words && this.isTyped && !this.hasFailed) this.#remember();
      else this.ask(this.#withWords(), this.isTyped ? "type" : "push");
    });
    this.box.addEventListener("blur", () => this.#remember());
    const toggle = one(".ck-filters", this.root);
    toggle.addEventListener("click", () => {
      this.drawer.hidden = !this.drawer.hidden;
      toggle.setAttribute("aria-expanded", String(!this.drawer.hidden));
    });
    one(".ck-attach", this.root).addEventListener("click", () => this.file.click());
    this.file.addEventListener("change", () => { this.#drop(this.file.files[0]); this.file.value = ""; });
    this.#connectDrops();
    this.wall.addEventListener("stack", ({ detail }) => this.ask({ ...this.asked, twins: detail, more: [], less: [] }));
    document.addEventListener("keydown", (event) => this.#key(event));
    history.scrollRestoration = "manual"; // the pictures are not there yet when the browser would scroll
    const keep = debounced(() => this.#keepPlace(), 150);
    window.addEventListener("scroll", keep, { passive: true });
    window.addEventListener("popstate", (event) => this.#goBack(event.state));
    new IntersectionObserver((entries) => { // back on this tab: a folder may have been indexed meanwhile
      if (entries.some((entry) => entry.isIntersecting) && this.wasSeen) this.refresh();
      this.wasSeen = true;
    }).observe(one("#ck-ask", this.root));
  }

  #connectDrops() {
    const carries = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    this.root.addEventListener("dragover", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      this.root.classList.add("ck-dropping");
    });
    for (const kind of ["dragleave", "drop"]) this.root.addEventListener(kind, () => this.root.classList.remove("ck-dropping"));
    this.root.addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      this.#drop(event.dataTransfer.files[0]);
    });
    this.box.addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files || [];
      if (file) { event.preventDefault(); this.#drop(file); }
    });
  }

  async start() {
    this.grid.skeleton(24);
    const state = history.state || {};
    this.asked = { ...fromAddress(location.search), ...(state.question || {}) };
    this.box.value = this.asked.words;
    try { await this.#list(); } catch (error) { this.fail(error); }
    await this.#answer(this.asked, { how: "keep", state });
    this.lightbox.load().catch(() => {}); // so that it is there when the server is not
  }

  // ---- asking ----
  #withWords() {
    const words = this.box.value.trim();
    const isNew = words !== this.asked.words;
    return { ...this.asked, words, ...(isNew ? { more: [], less: [], twins: 0 } : {}) };
  }

  #type() { // as somebody types: what they are at, with no history of every letter
    if (this.box.value.trim() === this.wanted.words && !this.hasFailed) return;
    this.isTyped = true;
    this.#answer(this.#withWords(), { how: "type", isTyping: true });
    this.settle();
  }

  #remember() {
    this.settle.cancel();
    if (!this.isTyped) return;
    this.isTyped = this.hasStep = false;
    if (this.wanted.words === this.asked.words) remember(this.cleanWords); else this.isToRemember = true;
    this.#showRecent();
  }

  ask(question, how = "push") {
    this.settle.cancel();
    this.isTyped = false;
    this.isToRemember = true;
    return this.#answer(question, { how });
  }

  // how: "push" a new step of the history, "type" one for all that is typed in a row, "keep" both address and history.
  async #answer(question, { how, state = {}, isTyping = false }) {
    this.aborter?.abort();
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    if (how === "type") how = this.hasStep ? "replace" : "push";
    if (how === "push") this.#keepPlace();
    this.resting = null;
    this.wanted = question; // whoever asks again meanwhile means this one
    try {
      const answer = await post("ask", { ...toServer(question), k: Math.max(FIRST, Math.min(state.shown || 0, REST_OF_LIBRARY)) }, { signal });
      this.#show(question, answer, how, isTyping);
      if (state.top !== undefined) this.#scrollTo(state);
      else if (how !== "keep" && window.scrollY > this.grid.top) window.scrollTo(0, 0);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.wanted = this.asked;
      this.hasFailed = true;
      if (this.grid.isSkeleton) this.grid.show("", [], this.turn);
      this.fail(error);
    }
  }

  #show(question, answer, how, isTyping) {
    this.turn += 1;
    this.hasFailed = false;
    this.lightbox.close(); // of the pictures of before
    this.note.hidden = !answer.empty;
    if (answer.empty) { this.#empty(answer.empty); return; }
    this.asked = { ...question, library: answer.library };
    this.cleanWords = answer.words; // without characters that are never seen
    if (this.isToRemember) remember(this.cleanWords);
    this.isToRemember = false;
    this.next = answer.next;
    this.hasMore = answer.has_more;
    this.revision = answer.revision;
    if (how !== "keep") this.#write(how);
    if (!isTyping && this.box.value !== this.asked.words) this.box.value = this.asked.words;
    this.selection.clear();
    this.grid.show(answer.library, answer.pictures, this.turn);
    this.scrubber.show(answer.months);
    clearTimeout(this.calm);
    if (!isSearch(this.asked) && answer.has_more) this.calm = setTimeout(() => this.more(), CALM_MS);
    this.#headline(answer);
    const dropped = this.asked.preview ? answer.chips.map((chip) => (chip.kind === "picture" ? { ...chip, image: this.asked.preview } : chip)) : answer.chips;
    this.filters.chips(this.chips, dropped, this.asked);
    this.#aside();
  }

  #aside() {
    const isQuiet = !isSearch(this.asked);
    covers(one(".ck-covers", this.root), isQuiet ? this.libraries : [], this.asked.library, (question) => this.ask(question), () => this.empty());
    albums(one(".ck-albums", this.root), this.library(), this.asked, this);
    if (!this.drawer.contains(document.activeElement) || this.drawer.dataset.library !== this.asked.library) {
      this.filters.show(this.libraries, this.library(), this.asked);
      this.drawer.dataset.library = this.asked.library;
    }
    this.imagine.show(this.asked);
    this.#showRecent();
  }

  #headline(answer) {
    const parts = [];
    for (const text of answer.lost) parts.push(note(sentence(text), "error"));
    for (const text of answer.notes) parts.push(make("p", "ck-reading", sentence(text)));
    if (answer.warning) parts.push(make("p", "ck-nothing", answer.warning));
    if (answer.pictures.length || !answer.warning) {
      const line = make("div", "ck-count");
      if (!answer.warning) line.append(make("b", "", answer.sentence));
      if (!isSearch(this.asked) && answer.pictures.length) line.append(document.createTextNode(" Search for something, or click a picture."));
      if (answer.numbers) line.append(make("details", "ck-figures", "", {}, [make("summary", "", "Numbers"), document.createTextNode(answer.numbers)]));
      parts.push(line);
    }
    this.headline.replaceChildren(...parts);
  }

  #empty(empty) {
    this.grid.show("", [], this.turn);
    this.headline.replaceChildren();
    this.chips.hidden = true;
    this.imagine.show(EMPTY);
    this.scrubber.show([]);
    this.note.replaceChildren(emptyNote(empty, this.said.is_local, (what) => this.#begin(what)));
  }

  async #begin(what) {
    try {
      const { library } = await post("index", what);
      this.asked = { ...EMPTY, library };
      this.wanted = this.asked;
      await this.#list();
    } catch (error) { this.fail(error); }
  }

  warn(error) { toast([error.message, error.hint].filter(Boolean).map(sentence).join(". ")); }

  fail(error) { // where it is seen, wherever the window is
    const isSeen = !this.lightbox.isOpen && this.headline.getBoundingClientRect().bottom > this.box.getBoundingClientRect().bottom;
    if (isSeen) this.headline.replaceChildren(note(error.message, "error", error.hint));
    else this.warn(error);
  }

  async more() {
    if (!this.hasMore || this.resting) return;
    const question = this.asked;
    this.resting = question;
    try {
      const answer = await post("ask", { ...toServer(question), start: this.next, k: isSearch(question) ? REST : REST_OF_LIBRARY }, { isQuiet: true });
      if (this.resting !== question) return;
      this.next = answer.next;
      this.hasMore = answer.has_more;
      this.grid.append(answer.pictures);
    } catch (error) {
      if (this.resting !== question) return;
      this.warn(error);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
    if (this.resting === question) this.resting = null;
  }

  async #jump(when) { // to a month whose pictures are not here yet
    await this.more();
    if (!this.scrubber.go(when)) this.ask({ ...this.asked, until: when, since: "" });
  }

  // ---- what changes beside a question ----
  async #list() {
    this.said = await get("clipkit/search/libraries");
    this.libraries = this.said.libraries;
    this.file.accept = [...this.said.types, "image/*"].join(",");
    this.runs.show(this.libraries);
  }

  async refresh({ again = false } = {}) {
    try {
      await this.#list();
      if (this.lightbox.isOpen) { this.#aside(); this.lightbox.renew(); return; } // its pictures stay as they are
      const { revision } = this.library();
      const isEmpty = !this.note.hidden;
      if (again || isEmpty || revision !== this.revision) {
        await this.#answer(this.wanted, { how: "keep", state: { top: window.scrollY, shown: this.next, chosen: this.selection.list } });
      } else this.#aside();
    } catch (error) { this.fail(error); }
  }

  #changed(libraries) { // an index run has added pictures, or has ended
    this.libraries = libraries;
    const { revision } = this.library();
    const isCalm = window.scrollY < 200 && !this.selection.ids.size && !this.lightbox.isOpen && document.activeElement !== this.box;
    if (!this.note.hidden || (revision !== this.revision && isCalm)) this.refresh();
    else this.#aside();
  }

  async #drop(file) {
    if (!file) return;
    const turn = Symbol("drop");
    this.dropped = turn;
    try {
      if (file.size > LARGEST_DROP) throw new Refused(`${file.name} is larger than 20 MB`, "drop a smaller picture");
      const { picture, name, preview } = await upload(file, this.asked.library);
      if (this.dropped !== turn) return; // another has been dropped since
      await this.ask({ ...this.#withWords(), picture, pictureName: name, preview, twins: 0 });
    } catch (error) { this.fail(error); }
  }

  // ---- earlier words ----
  #showRecent() {
    const list = recent();
    const isQuiet = !isSearch(this.asked);
    this.recent.hidden = !list.length || !isQuiet;
    this.recent.replaceChildren(make("span", "", "Earlier:"), ...list.map((words) => button("ck-past", words, () => this.ask({ ...this.empty(), words }), { title: words })),
      button("ck-past ck-forget", "clear history", () => { localStorage.removeItem(RECENT); this.#showRecent(); }));
  }

  // ---- history ----
  #state() {
    const { picture, pictureName, preview } = this.asked;
    return { top: window.scrollY, shown: this.next, chosen: this.selection.list.slice(0, MOST_KEPT), ...(picture ? { question: { picture, pictureName, preview } } : {}) };
  }

  #write(how) {
    const address = toAddress(this.asked, this.libraries.find((library) => library.is_indexed)?.key) || location.pathname;
    const state = { ...this.#state(), top: 0, chosen: [] };
    if (how === "push") history.pushState(state, "", address); else history.replaceState(state, "", address);
    this.hasStep = this.isTyped;
  }

  #keepPlace() { if (!this.isReturning && this.note.hidden) history.replaceState(this.#state(), ""); }

  async #goBack(state) {
    this.lightbox.close();
    this.settle.cancel();
    this.isTyped = false;
    this.isReturning = true;
    this.hasStep = false;
    if (this.drawer.contains(document.activeElement)) document.activeElement.blur(); // its fields are to show the filters of then
    const question = { ...fromAddress(location.search), ...((state && state.question) || {}) };
    this.box.value = question.words;
    const answered = this.#answer(question, { how: "keep", state: state || { top: 0 } });
    const { aborter } = this;
    await answered;
    if (this.aborter === aborter) this.isReturning = false; // else another step back is on its way
  }

  #scrollTo({ top, chosen = [] }) {
    if (chosen.length) this.selection.set(chosen);
    const end = performance.now() + SETTLE_MS;
    const { turn } = this;
    const again = () => {
      if (turn !== this.turn || this.isHeld) return; // another answer, or somebody scrolls
      window.scrollTo(0, top);
      if (performance.now() < end && Math.abs(window.scrollY - top) > 1) requestAnimationFrame(again);
    };
    this.isHeld = false;
    for (const kind of ["wheel", "touchstart", "keydown"]) window.addEventListener(kind, () => { this.isHeld = true; }, { once: true, passive: true });
    again();
  }

  // ---- keys ----
  #key(event) {
    if (this.lightbox.isOpen || one("dialog[open]") || !this.root.offsetParent) return;
    const writes = event.target.closest?.("input, textarea, select, [contenteditable]");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a" && !writes) {
      event.preventDefault();
      this.selection.all();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !writes) {
      event.preventDefault();
      this.box.focus();
      this.box.select();
    } else if (event.key === "Escape") {
      if (event.target === this.box) event.preventDefault(); // else it is emptied, and nobody hears of it
      if (this.selection.ids.size) this.selection.clear(); else if (writes) event.target.blur();
    } else if (event.key === "ArrowDown" && event.target === this.box && this.grid.rows.length) {
      event.preventDefault();
      this.grid.focus(0);
    } else if (event.key.startsWith("Arrow") && event.target === document.body && this.grid.rows.length) {
      event.preventDefault();
      this.grid.focus(this.grid.focused);
    }
  }
}

const sentence = (text) => text.replace(/^(?!clipkit )[a-z]+(?= )/, (word) => word.charAt(0).toUpperCase() + word.slice(1)); // no name of a file

const note = (text, kind, hint = "") => make("div", `ck-note ck-${kind}`, "", { role: "status" }, [
  make("h3", "", sentence(text)), ...(hint ? [make("p", "", sentence(hint))] : []),
]);

function recent() {
  try { return JSON.parse(localStorage.getItem(RECENT) || "[]").filter((x) => typeof x === "string"); } catch { return []; }
}

function remember(words) {
  if (!words) return;
  const list = [words, ...recent().filter((other) => other !== words)].slice(0, MOST_RECENT);
  try { localStorage.setItem(RECENT, JSON.stringify(list)); } catch { /* a private window keeps nothing */ }
}

export function start(root) {
  if (root.dataset.tied) return; // a component may be set up twice
  root.dataset.tied = "1";
  const page = new Page(root);
  page.start();
  window.clipkit.choose = (library, ids) => page.ask({ ...EMPTY, library, ids }).then(() => page.selection.set(ids));
}
