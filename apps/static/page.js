// What the page does in the browser: the grid's keys, the large view, links that keep their state. No server is asked
// but our own, and what comes from file names is only ever set as text.
"use strict";
window.clipkit = (() => {
  const HISTORY = "clipkit-history";
  const MOST = 12;
  const LOOK_MS = 300; // after a tab is opened
  const STARTS = 20; // times the first question is sent, until an answer comes
  const START_MS = 4000; // between two of them
  const SETTLE_MS = 2000; // in which the grid of an answer has its pictures, and the address its search
  let act = () => {}; // sends an action to the page's Python
  let watcher = null;
  let current = null; // the card that the large view shows
  let waiting = false; // for more answers
  let asked = 0; // how often an address was asked, or an answer came
  let saving = 0; // a timer: where the window is will be written into its history
  let isLeaving = false; // a picture was asked about, and the answer is not here yet
  let settled = 0; // when the last answer has moved everything to its place
  let place = null; // where the window was when this search was left, until it is shown again

  const one = (selector, inside = document) => inside.querySelector(selector);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const cards = () => all("#ck-grid .ck-card");
  const make = (tag, name, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text) node.textContent = text;
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  // ---- the grid -------------------------------------------------------------------------------------------------
  function grid(element, trigger, watch) {
    act = (kind, data = {}) => trigger("act", { kind, ...data });
    element.addEventListener("click", (event) => {
      const card = event.target.closest(".ck-card");
      if (card) open(card);
      const button = event.target.closest("[data-act]");
      if (button) act(button.dataset.act, { id: Number(button.dataset.id || 0), when: button.dataset.when || "" });
    });
    element.addEventListener("error", (event) => {
      const card = event.target.closest && event.target.closest(".ck-card");
      if (card) card.classList.add("ck-broken");
    }, true);
    const ready = () => {
      waiting = false;
      observe(element);
    };
    watch("value", () => {
      asked += 1;
      isLeaving = false;
      clearTimeout(saving); // what moves the window now is the answer
      settled = performance.now() + SETTLE_MS;
      ready();
      scrollBack();
    });
    ready();
    place = history.state; // of a page that is loaded again
    askAddress({ shown: place ? place.shown : 0 });
    let wasSeen = false;
    new IntersectionObserver((entries) => { // back on this tab: a folder may have been indexed meanwhile
      const isSeen = entries.some((entry) => entry.isIntersecting);
      if (isSeen && wasSeen && one(".ck-note", element)) act("start", { search: location.search });
      wasSeen = true;
    }).observe(element);
  }

  function askAddress(data, tries = 0, number = ++asked) { // an event that Gradio does not hear is lost: sent again
    if (number !== asked || tries > STARTS) return;
    act("start", { search: location.search, again: tries > 0, ...data });
    setTimeout(() => askAddress(data, tries + 1, number), START_MS);
  }

  function scrollBack() { // the grid grows for some frames before the window can be where it was
    if (!place) return;
    window.scrollTo(0, place.top);
    if (performance.now() < settled && Math.abs(window.scrollY - place.top) > 1) requestAnimationFrame(scrollBack);
    else place = null;
  }

  function observe(element) {
    if (watcher) watcher.disconnect();
    const end = one(".ck-end", element);
    if (!end) return;
    watcher = new IntersectionObserver((entries) => {
      if (!waiting && entries.some((entry) => entry.isIntersecting)) {
        waiting = true;
        act("page", { shown: cards().length });
      }
    }, { rootMargin: "900px" });
    watcher.observe(end);
  }

  function chips(element) {
    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-act]");
      if (button) act(button.dataset.act, { id: Number(button.dataset.id || 0) });
    });
  }

  function panel(element, trigger) { // the Library tab: buttons that carry a library's key
    let look = 0;
    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-act]");
      if (!button || button.disabled) return;
      const question = button.dataset.ask;
      if (question && !window.confirm(question)) return;
      clearTimeout(look); // Gradio may lose the answer to one of two events that follow each other at once
      trigger("act", { kind: button.dataset.act, key: button.dataset.key || "" });
    });
    new IntersectionObserver((entries) => { // the tab is opened: what has changed since is shown
      clearTimeout(look);
      if (!entries.some((entry) => entry.isIntersecting)) return;
      look = setTimeout(() => trigger("act", { kind: "look" }), LOOK_MS);
    }).observe(element);
  }

  // ---- what Python says beside the screen -------------------------------------------------------------------------
  function signal(text) {
    let said;
    try { said = JSON.parse(text || "{}"); } catch { return; }
    if (said.url !== undefined && said.url !== location.search) {
      history.pushState(null, "", said.url || location.pathname);
    }
    if (said.words) remember(said.words);
    if (said.download) {
      const link = make("a", "", "", { href: said.download, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
    }
    if (said.append !== undefined) {
      const target = one("#ck-grid .ck-grid");
      const end = one("#ck-grid .ck-end");
      if (target && Number(target.dataset.turn) === said.turn) {
        target.insertAdjacentHTML("beforeend", said.append); // escaped where it was made
        if (end && !said.more) end.remove();
      }
      waiting = false;
      if (said.more) observe(one("#ck-grid")); // the end may still be in sight
    }
    if (said.close) close();
    if (said.say) toast(said.say);
  }

  function toast(text) {
    const old = one(".ck-toast");
    if (old) old.remove();
    const node = make("div", "ck-toast", text, { role: "status" });
    document.body.append(node);
    setTimeout(() => node.remove(), 4000);
  }

  // ---- earlier questions ------------------------------------------------------------------------------------------
  const recent = () => {
    try { return JSON.parse(localStorage.getItem(HISTORY) || "[]").filter((x) => typeof x === "string"); }
    catch { return []; }
  };
  function remember(words) {
    const list = [words, ...recent().filter((other) => other !== words)].slice(0, MOST);
    try { localStorage.setItem(HISTORY, JSON.stringify(list)); } catch { /* a private window keeps nothing */ }
    showRecent();
  }
  function showRecent() {
    const place = one("#ck-recent .ck-recent");
    if (!place) return;
    place.replaceChildren();
    const list = recent();
    if (!list.length) return;
    place.append(make("span", "", "Earlier:"));
    for (const words of list) {
      const button = make("button", "ck-past", words, { type: "button", title: words });
      button.addEventListener("click", () => act("words", { words }));
      place.append(button);
    }
    const forget = make("button", "ck-past ck-forget", "clear history", { type: "button" });
    forget.addEventListener("click", () => { localStorage.removeItem(HISTORY); showRecent(); });
    place.append(forget);
  }

  // ---- the large view -----------------------------------------------------------------------------------------------
  function pictureDialog(name, label, side, turn) { // a picture with `side` beside it; turn(1) and turn(-1) go on
    const box = make("dialog", name, "", { "aria-label": label });
    const frame = make("div", "ck-frame");
    const image = make("img", "", "", { alt: "" });
    image.addEventListener("error", () => box.classList.add("ck-unshown"));
    image.addEventListener("load", () => box.classList.remove("ck-loading"));
    frame.append(image, make("p", "ck-cannot", "This picture cannot be shown."));
    for (const [place, said, step] of [["ck-back", "previous picture", -1], ["ck-next", "next picture", 1]]) {
      const button = make("button", `ck-turn ${place}`, step < 0 ? "‹" : "›", { type: "button", "aria-label": said });
      button.addEventListener("click", () => turn(step));
      frame.append(button);
    }
    const shut = make("button", "ck-shut", "×", { type: "button", "aria-label": "close" });
    shut.addEventListener("click", () => box.close());
    box.append(frame, side, shut);
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
    document.body.append(box);
    return box;
  }

  let dialog = null;
  function viewer() {
    if (dialog) return dialog;
    const side = make("div", "ck-about");
    side.append(make("h3", "ck-title"), make("dl", "ck-facts"));
    const row = make("div", "ck-do");
    const buttons = [
      ["more", "More like this"], ["less", "Less like this"], ["twins", "Find duplicates"],
      ["copy", "Copy path"], ["save", "Download"], ["reveal", "Open folder"],
    ];
    for (const [kind, label] of buttons) {
      const button = make("button", `ck-button ck-${kind}`, label, { type: "button", "data-do": kind });
      button.addEventListener("click", () => press(kind));
      row.append(button);
    }
    side.append(row);
    dialog = pictureDialog("ck-view", "picture", side, turn);
    dialog.addEventListener("close", () => { if (current) current.focus(); });
    return dialog;
  }

  function open(card) {
    const view = viewer();
    current = card;
    const image = one("img", view);
    view.classList.remove("ck-unshown");
    view.classList.add("ck-loading");
    image.src = card.dataset.large;
    image.alt = one(".ck-name", card).textContent;
    one(".ck-title", view).textContent = image.alt;
    one(".ck-facts", view).replaceChildren();
    delete view.dataset.place;
    if (!view.open) view.showModal();
    about(card, view);
  }

  async function about(card, view) {
    const { library, id } = card.dataset;
    const answer = await fetch(`clipkit/about/${encodeURIComponent(library)}/${encodeURIComponent(id)}`);
    if (current !== card || !answer.ok) return;
    const said = await answer.json();
    const facts = one(".ck-facts", view);
    const size = said.bytes === null ? "" : said.bytes >= 1e6 ? `${(said.bytes / 1e6).toFixed(1)} MB`
      : `${Math.max(1, Math.round(said.bytes / 1e3))} kB`;
    const score = Number(card.dataset.score);
    const rows = [
      ["Path", said.path],
      ["Size", `${said.width} × ${said.height}, ${said.kind}${size ? `, ${size}` : ""}`],
      ["Taken", said.taken], ["Camera", said.camera],
      ["Score", score ? `${score.toFixed(4)}${card.dataset.label ? `, ${card.dataset.label}` : ""}` : ""],
    ];
    facts.replaceChildren();
    for (const [name, value] of rows) {
      if (value) facts.append(make("dt", "", name), make("dd", "", value));
    }
    if (!said.is_shown) facts.append(make("dt", "", "Note"),
      make("dd", "", "It is not there, or leads out of its folder: only its name is shown."));
    view.dataset.place = said.place;
  }

  function press(kind) {
    if (!current) return;
    const { id, library } = current.dataset;
    if (kind === "copy") return copy(dialog.dataset.place || one(".ck-name", current).textContent);
    if (kind === "save") {
      const link = make("a", "", "", { href: `clipkit/file/${library}/${id}`, download: "" });
      document.body.append(link);
      link.click();
      return link.remove();
    }
    if (kind === "reveal") return act("reveal", { id: Number(id) });
    current = null;
    close();
    act(kind, { id: Number(id) });
    isLeaving = true; // what the history says of this search stays
    window.scrollTo({ top: 0 });
  }

  async function copy(text) {
    try { await navigator.clipboard.writeText(text); toast("The path is on the clipboard."); }
    catch { toast(text); }
  }

  function turn(step) {
    const list = cards();
    const next = list[list.indexOf(current) + step];
    if (next) { open(next); next.scrollIntoView({ block: "nearest" }); }
  }

  function close() { if (dialog && dialog.open) dialog.close(); }

  // ---- keys -----------------------------------------------------------------------------------------------------------
  function vertical(card, down) { // the card of the next row that is nearest to this one's middle
    const here = card.getBoundingClientRect();
    const middle = here.left + here.width / 2;
    const rows = cards().map((other) => [other, other.getBoundingClientRect()])
      .filter(([, box]) => (down ? box.top > here.top + 4 : box.top < here.top - 4));
    if (!rows.length) return null;
    const top = down ? Math.min(...rows.map(([, box]) => box.top)) : Math.max(...rows.map(([, box]) => box.top));
    const row = rows.filter(([, box]) => Math.abs(box.top - top) < 4);
    const far = ([, box]) => Math.abs(box.left + box.width / 2 - middle);
    return row.sort((a, b) => far(a) - far(b))[0][0];
  }

  function move(card, key) {
    const list = cards();
    const place = list.indexOf(card);
    const next = { ArrowRight: list[place + 1], ArrowLeft: list[place - 1], Home: list[0], End: list[list.length - 1] }[key]
      || (key === "ArrowDown" ? vertical(card, true) : key === "ArrowUp" ? vertical(card, false) : null);
    if (!next) return false;
    card.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = event.target.closest && event.target.closest("input, textarea, select, [contenteditable]");
    if (dialog && dialog.open) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); turn(step); }
      return;
    }
    if (event.key === "/" && !writes) {
      const box = all("#ck-box textarea, #ck-box input[type=text]").find((node) => node.offsetParent);
      if (box) { event.preventDefault(); box.focus(); box.select(); }
      return;
    }
    if (event.key === "Escape" && writes) return event.target.blur();
    if (writes && event.key === "ArrowDown" && event.target.closest("#ck-box") && cards().length) {
      event.preventDefault();
      return cards()[0].focus();
    }
    const card = event.target.closest && event.target.closest(".ck-card");
    if (card && move(card, event.key)) event.preventDefault();
    if (!writes && !card && event.key.startsWith("Arrow") && cards().length && event.target === document.body) {
      event.preventDefault();
      cards()[0].focus();
    }
  });

  // ---- back and forward ---------------------------------------------------------------------------------------------
  history.scrollRestoration = "manual"; // the pictures are not there yet when the browser would scroll
  window.addEventListener("scroll", () => {
    clearTimeout(saving);
    saving = setTimeout(() => {
      if (!place && !isLeaving) history.replaceState({ top: window.scrollY, shown: cards().length }, "");
    }, Math.max(150, settled - performance.now()));
  }, { passive: true });
  window.addEventListener("popstate", (event) => {
    clearTimeout(saving);
    place = event.state || { top: 0, shown: 0 };
    askAddress({ back: true, shown: place.shown });
  });

  // ---- light and dark ---------------------------------------------------------------------------------------------------
  function shade() {
    const is = document.body.classList.toggle("dark");
    try { localStorage.setItem("clipkit-dark", is ? "1" : "0"); } catch { /* as above */ }
  }
  function head(element) {
    if (element.dataset.tied) return; // a component may be set up twice
    element.dataset.tied = "1";
    const kept = localStorage.getItem("clipkit-dark");
    if (kept !== null && !new URLSearchParams(location.search).has("__theme")) {
      document.body.classList.toggle("dark", kept === "1");
    }
    element.addEventListener("click", (event) => {
      if (event.target.closest(".ck-shade")) shade();
    });
  }
  function filters(element) {
    element.addEventListener("click", (event) => {
      if (event.target.closest(".ck-toggle")) document.body.classList.toggle("ck-filters-open");
    });
  }

  return { one, all, make, pictureDialog, grid, chips, panel, signal, showRecent, head, filters };
})();
