// The wall of pictures: rows that fill the width, of which only those near the window are in the document.
import { make, one } from "./dom.js";
import { thumb } from "./server.js";

const RATIOS = [0.4, 2.8]; // of width to height: a panorama does not take a row of its own, nor a strip a sliver
const WIDEST_ROW = 1.6; // of the height that rows should have
const HEADING = 44; // pixels
const AHEAD = 900; // pixels above and below the window that are in the document, too
const LONG_PRESS_MS = 450;

export class Grid {
  constructor(element, { open, toggle, near }) {
    this.element = element;
    this.open = open; // (index)
    this.toggle = toggle; // (index, { isRange })
    this.near = near; // () => whether more was asked for: the end of what is here comes near
    this.library = "";
    this.rows = []; // as the server sends them
    this.lines = []; // { top, height, cells: [{ index, left, width }] } or { top, height, heading }
    this.nodes = new Map(); // what is in the document, by its key
    this.chosen = new Set(); // ids
    this.focused = 0;
    this.width = 0;
    this.months = [];
    element.addEventListener("click", (event) => this.#clicked(event));
    element.addEventListener("keydown", (event) => this.#pressed(event));
    element.addEventListener("focusin", (event) => {
      const card = event.target.closest(".ck-card");
      if (card) this.#focusOn(Number(card.dataset.index));
    });
    this.#longPress();
    window.addEventListener("scroll", () => this.#later(), { passive: true });
    new ResizeObserver(() => {
      if (Math.abs(element.clientWidth - this.width) > 1) this.#resize();
    }).observe(element);
  }

  get isSkeleton() { return this.element.classList.contains("ck-skeleton"); }

  show(library, rows, turn) {
    this.library = library;
    this.rows = rows;
    this.focused = 0;
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.element.dataset.turn = String(turn);
    this.element.classList.remove("ck-skeleton");
    this.layOut();
  }

  append(rows) { // of a library that changes meanwhile, one may come twice
    const here = new Set(this.rows.map(({ id }) => id));
    this.rows = this.rows.concat(rows.filter(({ id }) => !here.has(id)));
    this.layOut();
  }

  remove(ids) {
    this.rows = this.rows.filter((row) => !ids.has(row.id));
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.layOut();
  }

  // ---- where everything is ----
  layOut() {
    this.width = this.element.clientWidth;
    if (!this.width) return;
    const style = getComputedStyle(this.element);
    const high = parseFloat(style.getPropertyValue("--ck-row")) || 200;
    const gap = parseFloat(style.getPropertyValue("--ck-gap")) || 6;
    this.lines = [];
    this.months = [];
    let top = 0;
    let line = [];
    let ratios = 0;
    const close = (isLast) => {
      if (!line.length) return;
      const room = this.width - gap * (line.length - 1);
      const height = Math.min(room / ratios, high * (isLast ? 1 : WIDEST_ROW));
      let left = 0;
      const cells = line.map(({ index, ratio }) => {
        const cell = { index, left, width: ratio * height };
        left += cell.width + gap;
        return cell;
      });
      this.lines.push({ top, height, cells });
      top += height + gap;
      line = [];
      ratios = 0;
    };
    for (const [index, row] of this.rows.entries()) {
      if (row.month !== undefined && (!index || row.month !== this.rows[index - 1].month)) {
        close(true);
        this.lines.push({ top, height: HEADING, heading: monthName(row.month), index });
        this.months.push({ month: row.month, top });
        top += HEADING;
      }
      const ratio = Math.min(Math.max(row.width / row.height || 1, RATIOS[0]), RATIOS[1]);
      line.push({ index, ratio });
      ratios += ratio;
      if (ratios * high + gap * (line.length - 1) >= this.width) close(false);
    }
    close(true);
    this.height = top;
    this.element.style.height = `${Math.ceil(top)}px`;
    this.draw();
  }

  #resize() { // the row at the top of the window stays there
    const above = window.scrollY - this.top;
    const first = above > 0 && this.width ? this.lines[this.#lineAt(above)] : null;
    const index = first?.cells ? first.cells[0].index : first?.index;
    this.layOut();
    const now = first && this.lines.find(({ cells }) => cells && cells[cells.length - 1].index >= index);
    if (now) window.scrollTo(0, this.top + now.top + Math.min(0, above - first.top));
  }

  skeleton(count) {
    this.element.classList.add("ck-skeleton");
    this.rows = Array.from({ length: count }, (_, place) => ({ width: [3, 4, 2, 3][place % 4], height: [2, 3, 3, 3][place % 4] }));
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.layOut();
  }

  get top() { return this.element.getBoundingClientRect().top + window.scrollY; }

  #later() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => { this.waits = false; this.draw(); });
  }

  #lineAt(offset) { // the first line that ends below it
    let low = 0;
    let high = this.lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle].top + this.lines[middle].height < offset) low = middle + 1; else high = middle;
    }
    return low;
  }

  draw() {
    if (!this.element.offsetParent) return; // another tab is shown
    const above = window.scrollY - this.top;
    const from = above - AHEAD;
    const to = above + window.innerHeight + AHEAD;
    const wanted = new Map();
    for (let place = this.#lineAt(from); place < this.lines.length && this.lines[place].top < to; place += 1) {
      const line = this.lines[place];
      if (line.heading !== undefined) wanted.set(`h${line.index}`, [line, null]);
      else for (const cell of line.cells) wanted.set(cell.index, [line, cell]);
    }
    for (const [key, node] of this.nodes) {
      if (wanted.has(key) || node.contains(document.activeElement)) continue;
      node.remove();
      this.nodes.delete(key);
    }
    const fresh = document.createDocumentFragment();
    for (const [key, [line, cell]] of wanted) {
      let node = this.nodes.get(key);
      if (!node) {
        node = cell ? this.#card(cell.index) : make("h2", "ck-month", line.heading);
        this.nodes.set(key, node);
        fresh.append(node);
      }
      node.style.transform = `translate(${cell ? cell.left : 0}px, ${line.top}px)`;
      node.style.width = `${cell ? cell.width : this.width}px`;
      node.style.height = `${line.height}px`;
    }
    this.element.append(fresh);
    if (this.rows.length && to > this.height) this.near();
  }

  #card(index) {
    const row = this.rows[index];
    if (row.id === undefined) return make("div", "ck-card ck-bone", "", { "aria-hidden": "true" });
    const label = row.label || "";
    const image = make("img", "", "", { alt: row.name, decoding: "async", draggable: "false" });
    image.addEventListener("error", () => card.classList.add("ck-broken"));
    image.addEventListener("load", () => card.classList.add("ck-loaded"));
    image.src = thumb(this.library, row);
    const marks = make("span", "ck-marks", "", {}, [
      ...(label ? [make("i", "", label)] : []), ...(row.score ? [make("span", "ck-score", row.score.toFixed(3))] : []),
    ]);
    const opener = make("button", "ck-open", "", {
      type: "button", tabindex: index === this.focused ? "0" : "-1",
      "aria-label": [row.name, label, row.copies ? `${row.copies} copies` : ""].filter(Boolean).join(", "),
    }, [image, make("span", "ck-name", row.name), marks]);
    const tick = make("button", "ck-tick", "", {
      type: "button", role: "checkbox", tabindex: "-1", "aria-label": `choose ${row.name}`,
      "aria-checked": String(this.chosen.has(row.id)),
    });
    const card = make("div", `ck-card ck-${label || "plain"}`, "", {
      "data-id": row.id, "data-index": index, "data-label": label, "data-library": this.library,
    }, [opener, tick]);
    if (row.copies) {
      card.append(make("button", "ck-stack", `×${row.copies}`, {
        type: "button", tabindex: "-1", "data-stack": row.id, title: "identical pictures: show them",
        "aria-label": `${row.copies} identical pictures: show them`,
      }));
    }
    card.classList.toggle("ck-chosen", this.chosen.has(row.id));
    return card;
  }

  // ---- what is chosen ----
  mark(chosen) {
    this.chosen = chosen;
    this.element.classList.toggle("ck-choosing", chosen.size > 0);
    for (const [key, node] of this.nodes) {
      if (typeof key !== "number") continue;
      const isChosen = chosen.has(this.rows[key]?.id);
      node.classList.toggle("ck-chosen", isChosen);
      one(".ck-tick", node)?.setAttribute("aria-checked", String(isChosen));
    }
  }

  #clicked(event) {
    const card = event.target.closest(".ck-card");
    if (!card || card.classList.contains("ck-bone")) return;
    const index = Number(card.dataset.index);
    if (this.held) { this.held = false; return; } // the end of a long press
    if (event.target.closest(".ck-stack")) {
      this.element.dispatchEvent(new CustomEvent("stack", { detail: Number(card.dataset.id) }));
    } else if (event.target.closest(".ck-tick") || event.shiftKey || event.ctrlKey || event.metaKey || this.#isTouchChoice(event)) {
      this.toggle(index, { isRange: event.shiftKey });
    } else {
      this.open(index);
    }
  }

  #isTouchChoice(event) { return event.pointerType === "touch" && this.chosen.size > 0; }

  #longPress() {
    let timer = 0;
    const stop = () => clearTimeout(timer);
    this.element.addEventListener("pointerdown", (event) => {
      this.held = false;
      const card = event.target.closest(".ck-card");
      if (event.pointerType !== "touch" || !card) return;
      timer = setTimeout(() => {
        this.held = true;
        this.toggle(Number(card.dataset.index), { isRange: false });
      }, LONG_PRESS_MS);
    });
    for (const kind of ["pointerup", "pointercancel", "pointermove"]) {
      this.element.addEventListener(kind, (event) => {
        if (kind !== "pointermove" || Math.abs(event.movementX) + Math.abs(event.movementY) > 4) stop();
      });
    }
    this.element.addEventListener("contextmenu", (event) => { if (this.held) event.preventDefault(); });
  }

  // ---- keys ----
  #focusOn(index) {
    if (index === this.focused) return;
    const before = this.nodes.get(this.focused);
    if (before) one(".ck-open", before)?.setAttribute("tabindex", "-1");
    this.focused = index;
    const now = this.nodes.get(index);
    if (now) one(".ck-open", now)?.setAttribute("tabindex", "0");
  }

  focus(index) {
    if (this.isSkeleton) return;
    const line = this.lines.find(({ cells }) => cells && index >= cells[0].index && index <= cells[cells.length - 1].index);
    if (!line) return;
    const top = this.top + line.top;
    const bar = one("#ck-ask")?.getBoundingClientRect().bottom || 0;
    if (top < window.scrollY + bar) window.scrollTo(0, top - bar - 12);
    else if (top + line.height > window.scrollY + window.innerHeight) window.scrollTo(0, top + line.height - window.innerHeight + 12);
    this.draw();
    const node = this.nodes.get(index);
    if (node) { this.#focusOn(index); one(".ck-open", node).focus({ preventScroll: true }); }
  }

  #neighbour(index, isDown) { // of the next row the one that is nearest to this one's middle
    const place = this.lines.findIndex(({ cells }) => cells && index >= cells[0].index && index <= cells[cells.length - 1].index);
    const here = this.lines[place].cells.find((cell) => cell.index === index);
    const middle = here.left + here.width / 2;
    const step = isDown ? 1 : -1;
    let other = place + step;
    while (this.lines[other] && !this.lines[other].cells) other += step;
    if (!this.lines[other]) return index;
    const far = (cell) => Math.abs(cell.left + cell.width / 2 - middle);
    return this.lines[other].cells.reduce((best, cell) => (far(cell) < far(best) ? cell : best)).index;
  }

  #pressed(event) {
    const card = event.target.closest(".ck-card");
    if (!card || event.altKey || event.ctrlKey || event.metaKey) return;
    const index = Number(card.dataset.index);
    if (event.key === " " && event.target.closest(".ck-open")) {
      event.preventDefault();
      this.toggle(index, { isRange: event.shiftKey });
      return;
    }
    const next = {
      ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: this.rows.length - 1,
      ArrowDown: event.key === "ArrowDown" ? this.#neighbour(index, true) : index,
      ArrowUp: event.key === "ArrowUp" ? this.#neighbour(index, false) : index,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (next >= 0 && next < this.rows.length && next !== index) this.focus(next);
  }
}

export function monthName(when) {
  const [year, month] = when.split("-");
  if (!/^\d{4}$/.test(year || "")) return "Without a date";
  if (!month) return year;
  return new Date(Date.UTC(Number(year), Number(month) - 1, 15)).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
}
