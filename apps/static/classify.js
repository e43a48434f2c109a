// The Classify tab in the browser: a picture is put into another column by a click or a key. Names come from our own
// escaped JSON and are only ever set as text.
"use strict";
(function begin() { // page.js may come later, though it is asked for first
  if (!window.clipkit) {
    setTimeout(begin, 20);
    return;
  }
window.clipkitClassify = (() => {
  const NONE = -1;
  const SET_ASIDE = "unsure, or none of these";
  const CUT_MS = 350; // after the last key, until a cut is sent
  let act = () => {}; // sends an action to the page's Python
  let board = null;
  let current = null; // the picture that the chooser shows
  let chooser = null;

  const { one, all, make, pictureDialog } = window.clipkit;
  const picks = () => (board ? all(".ck-pick", board) : []);
  const names = () => {
    const node = board && one(".ck-columns", board);
    return node ? JSON.parse(node.dataset.classes) : [];
  };
  const named = (place) => (place === NONE ? SET_ASIDE : names()[place]);
  const columnOf = (place) => one(`.ck-column[data-place="${place}"]`, board);

  function columns(element, trigger, watch) {
    board = element;
    act = (kind, data = {}) => trigger("act", { kind, ...data });
    element.addEventListener("click", (event) => {
      const pick = event.target.closest(".ck-pick");
      if (pick) return open(pick);
      const button = event.target.closest("[data-act=more]");
      if (!button || button.disabled) return;
      button.disabled = true;
      act("more", { place: Number(button.dataset.place), shown: Number(button.dataset.shown) });
    });
    element.addEventListener("error", (event) => {
      const pick = event.target.closest && event.target.closest(".ck-pick");
      if (pick) pick.classList.add("ck-broken-pick");
    }, true);
    element.addEventListener("pointerdown", grab);
    element.addEventListener("dblclick", (event) => {
      const cut = event.target.closest(".ck-cut");
      if (cut) sendCut(cut, null);
    });
    watch("value", ready);
    ready();
  }

  function ready() {
    const first = picks()[0];
    if (first) first.tabIndex = 0;
  }

  function signal(text) {
    let said;
    try { said = JSON.parse(text || "{}"); } catch { return; }
    window.clipkit.signal(JSON.stringify({ say: said.say, download: said.download }));
    if (said.labels !== undefined) count(said.labels);
    if (said.columns && board) refill(said.turn, said.columns);
    if (said.pile === undefined || !board) return;
    const whole = one(".ck-columns", board);
    const column = columnOf(said.place);
    if (!whole || !column || Number(whole.dataset.turn) !== said.turn) return;
    one(".ck-pile", column).insertAdjacentHTML("beforeend", said.pile); // escaped where it was made
    const rest = one(".ck-rest", column);
    if (rest) rest.remove();
    column.insertAdjacentHTML("beforeend", said.rest);
  }

  function count(labels, frames = 60) { // the button comes with the first columns, some frames after this
    const button = one("#ck-learn");
    if (!button) return frames && requestAnimationFrame(() => count(labels, frames - 1));
    if (labels) button.dataset.labels = String(labels);
    else delete button.dataset.labels;
  }

  // ---- the cut of a class: what lies right of it is assigned, what lies left is unsure ---------------------------------
  function cutAt(cut) {
    return Number(one(".ck-handle", cut).getAttribute("aria-valuenow"));
  }

  function showCut(cut, at) {
    const bins = JSON.parse(cut.dataset.bins);
    const sum = (from, to) => bins.slice(from, to).reduce((all, next) => all + next, 0);
    const [below, above] = [sum(0, at), sum(at)].map((number) => number.toLocaleString("en-US"));
    const split = `${above} assigned, ${below} unsure`;
    const handle = one(".ck-handle", cut);
    cut.style.setProperty("--cut", at / bins.length);
    handle.setAttribute("aria-valuenow", at);
    handle.setAttribute("aria-valuetext", split);
    const column = cut.closest(".ck-column");
    one(".ck-split", column).textContent = split;
    one(".ck-many", column).textContent = (sum(at) + Number(cut.dataset.byHand)).toLocaleString("en-US");
  }

  function sendCut(cut, at) {
    clearTimeout(cut.waiting);
    act("cut", { place: Number(cut.dataset.place), at });
  }

  function grab(event) {
    const cut = event.target.closest(".ck-cut");
    if (!cut || event.button) return;
    const [before, bins] = [cutAt(cut), JSON.parse(cut.dataset.bins).length];
    const follow = ({ clientX }) => {
      const box = cut.getBoundingClientRect();
      const at = Math.round((bins * (clientX - box.left)) / box.width);
      showCut(cut, Math.min(Math.max(at, 0), bins));
    };
    const end = ({ type }) => {
      cut.removeEventListener("pointermove", follow);
      for (const name of ["pointerup", "pointercancel"]) cut.removeEventListener(name, end);
      if (type === "pointercancel") showCut(cut, before); // the window was scrolled
      else if (cutAt(cut) !== before) sendCut(cut, cutAt(cut));
    };
    cut.setPointerCapture(event.pointerId);
    cut.addEventListener("pointermove", follow);
    for (const name of ["pointerup", "pointercancel"]) cut.addEventListener(name, end);
    one(".ck-handle", cut).focus({ preventScroll: true });
    event.preventDefault();
    follow(event);
  }

  function cutKey(handle, event) {
    const cut = handle.closest(".ck-cut");
    const most = Number(handle.getAttribute("aria-valuemax"));
    if (event.key === "Backspace" || event.key === "Delete") sendCut(cut, null);
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -most, End: most }[event.key];
    if (step) {
      showCut(cut, Math.min(Math.max(cutAt(cut) + step, 0), most));
      clearTimeout(cut.waiting);
      cut.waiting = setTimeout(() => sendCut(cut, cutAt(cut)), CUT_MS);
    }
    return step || event.key === "Backspace" || event.key === "Delete";
  }

  function refill(turn, changed) { // two columns have other pictures; the histogram keeps its focus
    const whole = one(".ck-columns", board);
    if (!whole || Number(whole.dataset.turn) !== turn) return;
    for (const { place, count, cards, rest, histogram } of changed) {
      const column = columnOf(place);
      if (!column) continue;
      one(".ck-many", column).textContent = count;
      one(".ck-pile", column).innerHTML = cards; // escaped where it was made
      const old = one(".ck-rest", column);
      if (old) old.remove();
      column.insertAdjacentHTML("beforeend", rest);
      const [cut, fresh] = [one(".ck-cut", column), make("div")];
      fresh.innerHTML = histogram;
      if (!cut) continue;
      one("svg", cut).replaceWith(one("svg", fresh));
      Object.assign(cut.dataset, one(".ck-cut", fresh).dataset);
      cut.style.cssText = one(".ck-cut", fresh).style.cssText;
      for (const name of ["aria-valuenow", "aria-valuetext"]) {
        one(".ck-handle", cut).setAttribute(name, one(".ck-handle", fresh).getAttribute(name));
      }
      one(".ck-split", column).textContent = one(".ck-split", fresh).textContent;
    }
    ready();
  }

  // ---- labels by hand ---------------------------------------------------------------------------------------------
  function fix(pick, place) {
    if (place !== NONE && !(place in names())) return;
    act("fix", { id: Number(pick.dataset.id), place });
    pick.classList.add("ck-fixed");
    move(pick, place);
    const chance = one(".ck-chance", pick);
    chance.textContent = columnOf(place) ? "by hand" : `→ ${named(place)}`;
    pick.setAttribute("aria-label", `${one("img", pick).alt}: ${named(place)}, by hand`);
  }

  function undo(pick) {
    act("undo", { id: Number(pick.dataset.id) });
    pick.classList.remove("ck-fixed");
    move(pick, Number(pick.dataset.from));
    one(".ck-chance", pick).textContent = "as it was";
  }

  function move(pick, place) {
    const from = Number(pick.dataset.place);
    pick.dataset.place = String(place);
    if (from === place) return;
    const [left, entered] = [columnOf(from), columnOf(place)];
    for (const [column, step] of [[left, -1], [entered, 1]]) {
      const many = column && one(".ck-many", column);
      if (many) many.textContent = (Number(many.textContent.replace(/\D/g, "")) + step).toLocaleString("en-US");
    }
    if (entered) one(".ck-pile", entered).prepend(pick);
  }

  function neighbour(pick) {
    return pick.nextElementSibling || pick.previousElementSibling;
  }

  function key(pick, event) { // 1 to 9, 0 for none, Backspace takes it back; true if it was one of them
    if (/^[0-9]$/.test(event.key)) {
      const place = Number(event.key) - 1;
      if (place !== NONE && !(place in names())) return false;
      fix(pick, place);
      return true;
    }
    if (event.key !== "Backspace" && event.key !== "Delete") return false;
    undo(pick);
    return true;
  }

  // ---- the chooser --------------------------------------------------------------------------------------------------
  function build() {
    if (chooser) return chooser;
    const side = make("div", "ck-about");
    const filter = make("input", "ck-filter", "", { type: "text", placeholder: "find a class", "aria-label": "find a class" });
    filter.addEventListener("input", () => list(filter.value));
    side.append(make("h3", "ck-title"), make("div", "ck-chances"), filter, make("div", "ck-choices", "", { role: "group" }));
    chooser = pictureDialog("ck-view ck-choose", "choose the class of this picture", side, turn);
    chooser.addEventListener("close", () => { if (current && current.isConnected) current.focus(); });
    chooser.addEventListener("keydown", keys);
    return chooser;
  }

  function open(pick) {
    const view = build();
    current = pick;
    const image = one(".ck-frame img", view);
    view.classList.remove("ck-unshown");
    view.classList.add("ck-loading");
    image.src = pick.dataset.large;
    image.alt = one("img", pick).alt;
    one(".ck-title", view).textContent = image.alt;
    const chances = one(".ck-chances", view);
    chances.replaceChildren();
    for (const pair of pick.dataset.chances.split(",").filter(Boolean)) {
      const [place, share] = pair.split(":").map(Number);
      const line = make("div", "ck-chance-line");
      const bar = make("i");
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      line.append(bar, make("span", "", names()[place]), make("b", "", `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`));
      chances.append(line);
    }
    const filter = one(".ck-filter", view);
    filter.value = "";
    filter.hidden = names().length < 10;
    list("");
    if (!view.open) view.showModal();
    one(".ck-choices button", view).focus();
  }

  function list(text) {
    const wanted = text.trim().toLowerCase();
    const place = Number(current.dataset.place);
    const choices = [...names().map((name, i) => [i, name]), [NONE, SET_ASIDE]]
      .filter(([, name]) => name.toLowerCase().includes(wanted)).slice(0, 200);
    one(".ck-choices", chooser).replaceChildren(...choices.map(([i, name]) => {
      const button = make("button", "ck-button ck-choice", "", { type: "button", "data-place": String(i) });
      button.append(make("kbd", "", i === NONE ? "0" : i < 9 ? String(i + 1) : ""), make("span", "", name));
      if (i === place) button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => choose(i));
      return button;
    }));
  }

  function choose(place) { // and on to the next picture of the column that was being looked at
    const pick = current;
    const next = neighbour(pick);
    fix(pick, place);
    if (next) open(next);
    else chooser.close();
  }

  function turn(step) {
    const listed = picks();
    const next = listed[listed.indexOf(current) + step];
    if (next) { open(next); next.scrollIntoView({ block: "nearest" }); }
  }

  function keys(event) {
    const writes = event.target.closest("input");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (writes) {
      const first = one(".ck-choice", chooser);
      if (event.key === "Enter" && first) { event.preventDefault(); first.click(); }
      return;
    }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); return turn(step); }
    if (/^[0-9]$/.test(event.key) && (event.key === "0" || Number(event.key) <= names().length)) {
      event.preventDefault();
      return choose(Number(event.key) - 1);
    }
    if (event.key === "Backspace") { event.preventDefault(); undo(current); list(""); }
  }

  // ---- keys on the columns ------------------------------------------------------------------------------------------
  function vertical(pick, down) { // the nearest picture above or below
    const here = pick.getBoundingClientRect();
    const others = picks().map((other) => [other, other.getBoundingClientRect()])
      .filter(([, box]) => (down ? box.top > here.top + 4 : box.top < here.top - 4));
    const far = ([, box]) => Math.abs(box.left - here.left) + 2 * Math.abs(box.top - here.top);
    return others.length ? others.sort((a, b) => far(a) - far(b))[0][0] : null;
  }

  document.addEventListener("keydown", (event) => {
    const handle = event.target.closest && event.target.closest("#ck-board .ck-handle");
    if (handle && !event.ctrlKey && !event.metaKey && !event.altKey && cutKey(handle, event)) event.preventDefault();
    const pick = event.target.closest && event.target.closest("#ck-board .ck-pick");
    if (!pick || event.ctrlKey || event.metaKey || event.altKey) return;
    const listed = picks();
    const place = listed.indexOf(pick);
    const next = { ArrowRight: listed[place + 1], ArrowLeft: listed[place - 1] }[event.key]
      || (event.key === "ArrowDown" ? vertical(pick, true) : event.key === "ArrowUp" ? vertical(pick, false) : null);
    if (next) {
      event.preventDefault();
      return focus(pick, next);
    }
    const after = neighbour(pick);
    if (key(pick, event)) {
      event.preventDefault();
      focus(pick, after && !/^(Backspace|Delete)$/.test(event.key) ? after : pick);
    }
  });

  function focus(from, to) {
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  return { columns, signal };
})();
})();
