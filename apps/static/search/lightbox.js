// The large view: PhotoSwipe with what is known of the picture beside it.
import { all, button, download, make, one, toast } from "./dom.js";
import { FAVOURITES, moved } from "./question.js";
import { get, post, thumb } from "./server.js";

const LARGEST = 2048; // pixels of a side: the size that the server makes
const PANEL = 340; // pixels
const NARROW = 760; // pixels of a window in which the panel lies below
const SLIDE_MS = 4000;
const SIMILAR = 12;

export class Lightbox {
  // page: { grid, question(), facts(), toServer(), selection, ask(question), fail(error) }
  constructor(page) {
    this.page = page;
    this.view = null;
    this.timer = 0;
  }

  get isOpen() { return Boolean(this.view); }
  get row() { return this.page.grid.rows[this.view.currIndex]; }

  load() { return import("../vendor/photoswipe/photoswipe.esm.min.js"); }

  async open(index) {
    const { default: PhotoSwipe } = await this.load();
    if (this.view) return;
    const { grid } = this.page;
    const view = new PhotoSwipe({
      index, bgOpacity: 1, loop: false, preload: [1, 2], wheelToZoom: true, showHideAnimationType: "none",
      mainClass: "ck-large", errorMsg: "This picture cannot be shown.", arrowPrevTitle: "previous picture",
      arrowNextTitle: "next picture", closeTitle: "close", zoomTitle: "zoom", returnFocus: false,
      paddingFn: (size) => ({ top: 0, left: 0, right: size.x > NARROW ? PANEL : 0, bottom: size.x > NARROW ? 0 : 150 }),
    });
    this.view = view;
    view.addFilter("numItems", () => grid.rows.length);
    view.addFilter("itemData", (_, place) => this.#item(place));
    view.on("uiRegister", () => {
      view.ui.registerElement({ name: "play", order: 8, isButton: true, html: "▶", title: "slideshow", onClick: () => this.#play() });
      view.ui.registerElement({ name: "about", appendTo: "root", onInit: (element) => this.#panel(element) });
    });
    view.on("change", () => this.renew());
    view.on("keydown", ({ originalEvent }) => { // PhotoSwipe hears Esc only once it has opened
      if (originalEvent.key === "Escape" && !view.opener.isOpen) view.on("openingAnimationEnd", () => view.close());
    });
    view.on("close", () => { clearInterval(this.timer); this.timer = 0; });
    view.on("destroy", () => {
      const last = view.currIndex;
      this.view = null;
      if (!this.isLeaving) grid.focus(Math.min(last, grid.rows.length - 1));
      this.isLeaving = false;
    });
    view.init();
    view.element.setAttribute("aria-label", "picture");
  }

  close() {
    if (!this.view) return;
    this.isLeaving = true;
    this.view.close();
  }

  #item(place) {
    const row = this.page.grid.rows[place];
    const scale = Math.min(1, LARGEST / row.width, LARGEST / row.height);
    const library = this.page.grid.library;
    return {
      src: thumb(library, row, "large"), msrc: thumb(library, row), alt: row.name,
      width: Math.max(1, Math.round(row.width * scale)), height: Math.max(1, Math.round(row.height * scale)),
    };
  }

  #play() {
    if (this.timer) { clearInterval(this.timer); this.timer = 0; } else {
      this.timer = setInterval(() => {
        if (this.view.currIndex + 1 < this.page.grid.rows.length) this.view.next(); else this.#play();
      }, SLIDE_MS);
    }
    one(".pswp__button--play", this.view.element).classList.toggle("ck-playing", this.timer > 0);
  }

  #panel(element) {
    element.className = "ck-about";
    const press = (kind, label, work, attributes = {}) => button(`ck-button ck-${kind}`, label, work, attributes);
    element.append(
      make("h3", "ck-title"),
      make("div", "ck-do", "", {}, [
        press("more", "More like this", () => this.#move("more")),
        press("less", "Less like this", () => this.#move("less")),
        press("twins", "Find duplicates", () => this.#leave({ ...this.page.question(), twins: this.row.id, more: [], less: [] })),
        press("favourite", "★ Favourite", () => this.#favourite()),
        press("choose", "Choose", () => { this.page.selection.toggle(this.view.currIndex, { isRange: false }); this.#mark(); }),
        press("copy", "Copy path", () => this.#copy()),
        press("save", "Download", () => download(`clipkit/file/${this.page.grid.library}/${this.row.id}`)),
        press("reveal", "Open folder", () => this.page.selection.act({ action: "reveal" }, [this.row.id]), { "data-local": "" }),
      ]),
      make("dl", "ck-facts"),
      make("details", "ck-why", "", {}, [make("summary", "", "Why this picture?"), make("div", "ck-reasons")]),
      make("div", "ck-similar", "", { "aria-label": "similar pictures" }),
    );
    one(".ck-why", element).addEventListener("toggle", () => this.#why());
    for (const node of all("[data-local]", element)) node.hidden = !this.page.facts().is_local;
    for (const kind of ["pointerdown", "wheel", "touchstart", "touchmove"]) { // the panel scrolls and selects for itself
      element.addEventListener(kind, (event) => event.stopPropagation(), { passive: true });
    }
  }

  async renew() {
    const { row } = this;
    const panel = one(".ck-about", this.view.element);
    const { grid } = this.page;
    if (this.view.currIndex > grid.rows.length - 20) grid.near();
    one(".ck-title", panel).textContent = row.name;
    one(".ck-facts", panel).replaceChildren();
    one(".ck-similar", panel).replaceChildren();
    one(".ck-reasons", panel).replaceChildren();
    this.place = row.name;
    this.albums = [];
    this.#mark();
    try {
      const said = await get(`clipkit/about/${grid.library}/${row.id}`);
      if (!this.view || this.row !== row) return;
      this.#facts(panel, row, said);
      if (one(".ck-why", panel).open) this.#why();
      await this.#similar(panel, row);
    } catch (error) { if (this.view && this.row === row) one(".ck-facts", panel).textContent = error.message; }
  }

  #mark() { one(".ck-choose", this.view.element).setAttribute("aria-pressed", String(this.page.selection.ids.has(this.row.id))); }

  #facts(panel, row, said) {
    const size = said.bytes === null ? "" : said.bytes >= 1e6 ? `${(said.bytes / 1e6).toFixed(1)} MB`
      : `${Math.max(1, Math.round(said.bytes / 1e3))} kB`;
    const rows = [
      ["Path", said.path], ["Size", `${said.width} × ${said.height}, ${said.kind}${size ? `, ${size}` : ""}`],
      ["Taken", said.taken], ["Camera", said.camera], ["Lens", said.lens], ["Exposure", said.exposure],
      ["Rating", said.rating ? "★".repeat(said.rating) : ""], ["Tags", (said.tags || []).join(", ")],
      ["Albums", (said.albums || []).join(", ")],
      ["Relevance", row.score ? `${row.label}, score ${row.score.toFixed(4)}` : ""],
    ];
    const list = one(".ck-facts", panel);
    for (const [name, value] of rows) if (value) list.append(make("dt", "", name), make("dd", "", value));
    if (said.latitude !== null && said.latitude !== undefined) {
      const place = `${said.latitude.toFixed(5)}, ${said.longitude.toFixed(5)}`;
      const words = `place:${said.latitude.toFixed(4)},${said.longitude.toFixed(4)},5`;
      list.append(make("dt", "", "Place"), make("dd", "", "", {}, [
        button("ck-link", place, () => this.#leave({ ...this.page.empty(), words }), { title: "pictures taken within 5 km" }),
      ]));
    }
    if (!said.is_shown) {
      list.append(make("dt", "", "Note"), make("dd", "", "It is not there, or leads out of its folder: only its name is shown."));
    }
    this.place = said.place;
    this.albums = said.albums || [];
    one(".ck-favourite", panel).setAttribute("aria-pressed", String(this.albums.includes(FAVOURITES)));
  }

  async #similar(panel, row) {
    const { library } = this.page.grid;
    const answer = await post("ask", { library, more: [row.id], k: SIMILAR + 1 }, { isQuiet: true });
    if (!this.view || this.row !== row) return;
    const others = answer.pictures.filter(({ id }) => id !== row.id).slice(0, SIMILAR);
    one(".ck-similar", panel).replaceChildren(make("h4", "", "Similar"), ...others.map((other) => button("ck-like", "", () => this.#goTo(other), {
      "aria-label": `similar: ${other.name}`,
    })));
    for (const [place, node] of all(".ck-like", panel).entries()) {
      node.append(make("img", "", "", { src: thumb(library, others[place]), alt: "", loading: "lazy" }));
    }
  }

  #goTo(row) { // where the other one is among the answers: there; else a search for more like it
    const index = this.page.grid.rows.findIndex(({ id }) => id === row.id);
    if (index >= 0) this.view.goTo(index); else this.#leave({ ...this.page.question(), twins: 0, more: [row.id], less: [] });
  }

  async #why() {
    const { row } = this;
    const panel = one(".ck-about", this.view.element);
    const box = one(".ck-reasons", panel);
    if (!one(".ck-why", panel).open) return;
    try {
      const { terms } = await post("why", { ...this.page.toServer(), id: row.id }, { isQuiet: true });
      if (!this.view || this.row !== row) return;
      box.replaceChildren();
      if (!terms.length) box.append(make("p", "", "No words were asked: it is here by its date, a filter or another picture."));
      for (const term of terms) {
        const sign = term.weight < 0 ? "less of " : "";
        box.append(make("p", "", `${sign}“${term.term}”: cosine ${term.score.toFixed(3)}, ${term.label}`));
      }
      box.append(button("ck-button", "Where the model looked", () => this.#attention(box, row)));
    } catch (error) { box.textContent = error.message; }
  }

  async #attention(box, row) {
    const image = make("img", "ck-attention", "", {
      alt: "the picture as the model reads it; its last layer's attention; attention through all layers",
    });
    image.addEventListener("error", async () => {
      try { await get(image.src); } catch (error) { image.replaceWith(make("p", "", error.message)); }
    });
    image.src = `clipkit/search/attention/${this.page.grid.library}/${row.id}`;
    one("button", box)?.replaceWith(image);
  }

  #move(kind) {
    this.#leave(moved(this.page.question(), kind, [this.row.id]));
  }

  #leave(question) {
    this.close();
    this.page.ask(question);
  }

  async #favourite() {
    const isOne = this.albums.includes(FAVOURITES);
    await this.page.selection.act({ action: isOne ? "unalbum" : "album", album: FAVOURITES }, [this.row.id]);
  }

  async #copy() {
    try { await navigator.clipboard.writeText(this.place); toast("The path is on the clipboard."); } catch { toast(this.place); }
  }

}
