// The card "Imagine": pictures that a diffusion model makes of the words, and the photographs nearest to them.
import { button, counted, make } from "./dom.js";
import { post, thumb } from "./server.js";

const LOOK_MS = 700; // between two looks at a run
const COUNTS = [1, 2, 3, 4];

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export class Imagine {
  constructor(place, page) {
    this.place = place;
    this.page = page;
    this.words = "";
    this.run = "";
    this.count = 2;
  }

  show(question) { // of words that are on the screen; a run of other words is not waited for
    const { imagine } = this.page.facts();
    const words = question.words.startsWith("@") ? "" : question.words;
    this.place.hidden = !imagine || !words;
    if (words === this.words && this.place.childNodes.length) return;
    this.#leave();
    this.words = words;
    if (!this.place.hidden) this.#offer(imagine);
  }

  #offer(model) {
    const choice = make("select", "ck-field", "", { "aria-label": "how many pictures" },
      COUNTS.map((n) => make("option", "", String(n), { value: String(n), ...(n === this.count ? { selected: "" } : {}) })));
    choice.addEventListener("change", () => { this.count = Number(choice.value); });
    this.status = make("p", "ck-imagine-status", "", { role: "status" });
    this.start = button("ck-button", "Make pictures", () => this.#begin());
    this.stop = button("ck-button", "Stop", () => { this.stop.hidden = true; post("imagine/stop", { run: this.run }).catch(() => {}); });
    this.stop.hidden = true;
    this.made = make("div", "ck-imagined");
    this.near = make("div", "ck-imagined-near");
    this.nearTitle = make("h4", "", "Photographs nearest to the mean of these pictures, of the whole library:");
    this.nearTitle.hidden = true;
    this.place.replaceChildren(
      make("div", "ck-imagine-head", "", {}, [make("h3", "", "Imagine"), choice, this.start, this.stop,
        make("span", "", `Experimental: ${model} paints these words; shown are photographs like its pictures.`)]),
      this.status, this.made, this.nearTitle, this.near,
    );
  }

  async #begin() {
    this.#busy(true);
    this.made.replaceChildren();
    this.near.replaceChildren();
    this.nearTitle.hidden = true;
    this.status.textContent = `Making ${this.count === 1 ? "a picture" : `${this.count} pictures`}. This can take minutes; searching goes on.`;
    const turn = Symbol("run");
    this.turn = turn;
    try {
      const { run } = await post("imagine", { library: this.page.question().library, words: this.words, n: this.count });
      this.run = run;
      for (;;) {
        const state = await post("imagined", { run, seen: this.made.childNodes.length }, { isQuiet: true });
        if (this.turn !== turn) return;
        this.#draw(state);
        if (!state.is_running) break;
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        if (this.turn !== turn) return;
      }
      this.run = "";
    } catch (error) {
      if (this.turn !== turn) return;
      this.run = "";
      this.status.textContent = [error.message, error.hint].filter(Boolean).join(". ");
    }
    this.#busy(false);
  }

  #draw({ is_running: isRunning, n, pictures, found, safety }) {
    for (const picture of pictures) {
      const image = make("img", "", "", { src: picture.image, alt: picture.name });
      this.made.append(picture.refused ? make("span", "ck-imagine-refused", "refused by the safety checker") : image);
    }
    const count = this.made.childNodes.length;
    if (isRunning) {
      if (pictures.length) this.status.textContent = `${count} of ${n} made.`;
      return;
    }
    const rest = count < n ? ", then stopped" : "";
    this.status.textContent = count ? `${counted(count, "picture")} made${rest}. ${capital(safety)}`.trim() : "Stopped before a picture was made.";
    this.nearTitle.hidden = !found.length;
    const { library } = this.page.question();
    this.near.replaceChildren(...found.map((row) => {
      const label = `more like ${row.name}, ${row.score.toFixed(2)}`;
      const node = button("ck-like", "", () => this.page.ask({ ...this.page.empty(), more: [row.id] }), { "aria-label": label, title: label });
      node.append(make("img", "", "", { src: thumb(library, row), alt: "", loading: "lazy" }));
      return node;
    }));
  }

  #busy(isBusy) {
    this.start.disabled = isBusy;
    this.stop.hidden = !isBusy;
  }

  #leave() {
    this.turn = null;
    if (this.run) post("imagine/stop", { run: this.run }, { isQuiet: true }).catch(() => {});
    this.run = "";
    this.place.replaceChildren();
  }
}
