// The drawer of filters, and the chips that say which are on.
import { all, button, make, one } from "./dom.js";
import { filterChips } from "./question.js";

const SHAPES = ["landscape", "portrait", "square"];
const RELEVANCES = [["weak", "everything"], ["likely", "likely and strong"], ["strong", "strong only"]];

const field = (label, input) => make("label", "ck-label", "", {}, [make("span", "", label), input]);

export class Filters {
  constructor(drawer, ask, question) {
    this.drawer = drawer;
    this.ask = ask;
    this.question = question;
  }

  // What a library offers; the values are the question's.
  show(libraries, library, question) {
    this.drawer.replaceChildren();
    const add = (node) => this.drawer.append(node);
    const choose = (label, values, value, change) => {
      const list = make("select", "ck-field", "", {}, values.map(([key, text]) => make("option", "", text, { value: key })));
      list.value = value;
      list.addEventListener("change", () => change(list.value));
      add(field(label, list));
    };
    const set = (changes) => this.ask({ ...this.question(), ...changes });
    const indexed = libraries.filter((one_) => one_.is_indexed);
    if (indexed.length > 1) {
      choose("Library", indexed.map(({ key, name }) => [key, name]), library.key, (key) => set({ library: key, folder: "", album: "", more: [], less: [], twins: 0, ids: [], picture: "", preview: "" }));
    }
    if (library.albums.length) {
      choose("Album", [["", "all"], ...library.albums.map(({ name }) => [name, name])], question.album, (album) => set({ album }));
    }
    if (library.folders.length) {
      choose("Folder", [["", "all"], ...library.folders.map((name) => [name, name])], question.folder, (folder) => set({ folder }));
    }
    if (library.first) {
      const day = (label, name, placeholder) => {
        const input = make("input", "ck-field", "", { type: "text", placeholder, maxlength: "10", inputmode: "numeric" });
        input.value = question[name];
        input.addEventListener("change", () => set({ [name]: input.value.trim() }));
        add(field(label, input));
      };
      day("Taken from", "since", library.first);
      day("to", "until", library.last);
    }
    choose("Relevance", RELEVANCES, question.least, (least) => set({ least }));
    this.#boxes("Orientation", "shapes", SHAPES, question, set);
    if (library.kinds.length > 1) this.#boxes("File type", "kinds", library.kinds, question, set);
  }

  #boxes(label, name, values, question, set) {
    const boxes = values.map((value) => {
      const box = make("input", "", "", { type: "checkbox", value });
      box.checked = question[name].includes(value);
      box.addEventListener("change", () => set({ [name]: all("input:checked", group).map((one_) => one_.value) }));
      return make("label", "ck-box-label", "", {}, [box, document.createTextNode(` ${value}`)]);
    });
    const group = make("fieldset", "ck-boxes", "", {}, [make("legend", "", label), ...boxes]);
    this.drawer.append(group);
  }

  chips(place, answered, question) {
    const moved = (answered || []).map((chip) => this.#chip(chip.kind, chip.label, chip.name, chip.image, () => this.#drop(chip)));
    const narrowed = filterChips(question).map((chip) => this.#chip("filter", chip.label, chip.name, "", () => this.ask(chip.without)));
    place.replaceChildren(...moved, ...narrowed);
    place.hidden = !moved.length && !narrowed.length;
    const count = one(".ck-filter-count");
    if (count) count.textContent = narrowed.length ? ` (${narrowed.length})` : "";
  }

  #chip(kind, label, name, image, press) {
    const text = make("span", "", "", {}, [...(label ? [make("em", "", `${label} `)] : []), document.createTextNode(name)]);
    return make("span", `ck-chip ck-${kind}`, "", {}, [
      ...(image ? [make("img", "", "", { src: image, alt: "", width: "28", height: "28" })] : []), text,
      button("", "×", press, { "aria-label": `remove: ${[label, name].filter(Boolean).join(" ")}` }),
    ]);
  }

  #drop({ kind, id }) {
    const question = this.question();
    const without = (ids) => ids.filter((other) => other !== id);
    this.ask({
      more: { ...question, more: without(question.more) }, less: { ...question, less: without(question.less) },
      twins: { ...question, twins: 0 }, picture: { ...question, picture: "", pictureName: "", preview: "" },
    }[kind]);
  }
}
