// What stands around the wall when nothing is asked: libraries, albums, dates to go to, and index runs.
import { button, counted, make, prompt, toast } from "./dom.js";
import { monthName } from "./grid.js";
import { FAVOURITES } from "./question.js";
import { get, post } from "./server.js";

const LOOK_MS = 1000; // between two looks at runs

export function covers(place, libraries, current, ask, empty) {
  const shown = libraries.filter((library) => library.is_indexed);
  place.hidden = shown.length < 2;
  place.replaceChildren(...shown.map((library) => {
    const image = library.cover ? [make("img", "", "", { src: library.cover, alt: "", loading: "lazy" })] : [];
    const node = button(`ck-cover${library.key === current ? " ck-current" : ""}`, "", () => ask({ ...empty(), library: library.key }), {
      "aria-pressed": String(library.key === current),
    });
    node.append(...image, make("span", "", library.name), make("small", "", counted(library.count, "picture")));
    return node;
  }));
}

export function albums(place, library, question, page) {
  const sets = library.albums.map(({ name, count }) => button(
    `ck-past${question.album === name ? " ck-current" : ""}`, `${name === FAVOURITES ? "★ " : ""}${name} (${count})`,
    () => page.ask({ ...page.empty(), album: question.album === name ? "" : name }), { "aria-pressed": String(question.album === name) },
  ));
  const saved = library.searches.map(({ name, query }) => button("ck-past", `@${name}`, () => page.ask({ ...page.empty(), words: `@${name}` }), { title: query }));
  const keep = question.words && !question.words.startsWith("@") ? [button("ck-past ck-quiet", "save this search", async () => {
    const name = await prompt("Save this search", { placeholder: "beaches", hint: `@NAME asks again: ${question.words}`, ok: "Save" });
    if (!name) return;
    try {
      toast((await post("save", { library: library.key, name, words: question.words })).said);
      await page.refresh();
    } catch (error) { page.fail(error); }
  })] : [];
  place.hidden = !sets.length && !saved.length && !keep.length;
  place.replaceChildren(...sets, ...saved, ...keep);
}

// A rail of dates beside the wall: each month at the height of its pictures.
export class Scrubber {
  constructor(rail, grid, jump) {
    this.rail = rail;
    this.grid = grid;
    this.jump = jump; // (month): of pictures that are not here yet
    rail.addEventListener("pointerdown", (event) => {
      if (event.target.closest("button") && event.pointerType !== "touch") return;
      rail.setPointerCapture(event.pointerId);
      this.#drag(event);
      rail.onpointermove = (moved) => this.#drag(moved);
      rail.onlostpointercapture = () => { rail.onpointermove = null; };
    });
  }

  show(months) { // [[when, count], ...]: months, or years
    this.rail.hidden = months.length < 2;
    const total = months.reduce((sum, [, count]) => sum + count, 0);
    let before = 0;
    this.rail.replaceChildren(...months.map(([when, count]) => {
      const node = button("ck-date", "", () => { if (!this.go(when)) this.jump(when); }, { "aria-label": monthName(when), title: `${monthName(when)}, ${counted(count, "picture")}` });
      node.append(make("span", "", monthName(when)));
      node.style.top = `${(100 * before) / total}%`;
      node.dataset.year = when.slice(0, 4);
      before += count;
      return node;
    }));
    let year = "";
    let lowest = -5;
    for (const node of this.rail.children) {
      const top = parseFloat(node.style.top);
      const isNew = node.dataset.year !== year && top - lowest > 3;
      node.classList.toggle("ck-year", isNew);
      if (isNew) { year = node.dataset.year; lowest = top; }
    }
  }

  go(when) { // whether its pictures are here
    const month = this.grid.months.find((one) => one.month.startsWith(when));
    if (!month) return false;
    const bar = document.querySelector("#ck-ask")?.offsetHeight || 0;
    window.scrollTo({ top: this.grid.top + month.top - bar - 8 });
    return true;
  }

  #drag(event) {
    const box = this.rail.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
    window.scrollTo({ top: this.grid.top + share * Math.max(0, this.grid.height - window.innerHeight / 2) });
  }
}

// Looks at index runs while there is one, and says how it stands.
export class Runs {
  constructor(place, changed) {
    this.place = place;
    this.changed = changed; // (libraries): one has new pictures, or a run has ended
    this.timer = 0;
    this.seen = "";
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#look(), LOOK_MS);
  }

  show(libraries) {
    const running = libraries.filter(({ run }) => run && run.is_running);
    const failed = libraries.filter(({ run }) => run && run.state === "failed");
    this.place.replaceChildren(...running.map((library) => this.#bar(library)), ...failed.map((library) => (
      make("p", "ck-run-failed", `Indexing ${library.name} failed: ${library.run.lines.slice(-1)[0] || "see the Library tab"}`, { role: "status" }))));
    this.place.hidden = !this.place.childElementCount;
    if (running.length) this.watch();
    const now = libraries.map(({ key, revision, run }) => `${key} ${revision} ${Boolean(run && run.is_running)}`).join();
    if (this.seen && now !== this.seen) this.changed(libraries);
    this.seen = now;
  }

  #bar({ name, run }) {
    const share = run.total ? run.done / run.total : 0;
    const left = run.seconds_left === null ? "" : `, ${run.seconds_left < 90 ? `${Math.max(1, Math.round(run.seconds_left))} s` : `${Math.round(run.seconds_left / 60)} min`} left`;
    const text = run.total ? `${run.done.toLocaleString("en")} of ${run.total.toLocaleString("en")}, ${Math.round(run.rate)} pictures/s${left}` : "looking at the folder";
    return make("div", "ck-run", "", {}, [
      make("span", "", `Indexing ${name}: ${text}`),
      make("progress", "", "", { max: "1", ...(run.total ? { value: String(share) } : {}), "aria-label": `indexing ${name}` }),
    ]);
  }

  async #look() {
    try { this.show((await get("clipkit/search/libraries")).libraries); } catch { this.watch(); }
  }
}

// Nothing can be searched yet: what to do about it, right here.
export function emptyNote({ title, text, libraries = [] }, isLocal, begin) {
  const rows = libraries.map((library) => button("ck-button ck-primary", `Index ${library.name}`, () => begin({ library: library.key })));
  const note = make("div", "ck-note", "", { role: "status" }, [make("h3", "", title), make("p", "", text), make("div", "ck-row", "", {}, rows)]);
  if (isLocal) {
    const input = make("input", "ck-field", "", { type: "text", placeholder: "a folder on this machine: ~/Pictures", "aria-label": "folder of pictures", maxlength: "4000" });
    const form = make("form", "ck-row", "", {}, [input, make("button", "ck-button ck-primary", "Index Photos", { type: "submit" })]);
    form.addEventListener("submit", (event) => { event.preventDefault(); begin({ folder: input.value }); });
    note.append(form);
  }
  return note;
}
