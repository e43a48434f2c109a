// What the tabs share in the browser: a large view, light and dark. No server is asked but our own, and what comes from
// file names is only ever set as text. The search view is a module of its own, below search/.
"use strict";
window.clipkit = (() => {
  const LOOK_MS = 300; // after a tab is opened

  const one = (selector, inside = document) => inside.querySelector(selector);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (tag, name, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text) node.textContent = text;
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

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

  document.addEventListener("click", (event) => { // pictures that another tab has found, to be chosen in Search
    const button = event.target.closest("[data-choose]");
    if (!button || !window.clipkit.choose) return;
    all("button[role=tab]").find((tab) => tab.textContent.trim() === "Search")?.click();
    window.clipkit.choose(button.dataset.library, button.dataset.choose.split(",").map(Number));
  });

  async function signal(text) { // what Python says beside the screen: a sentence, a file to save
    let said;
    try { said = JSON.parse(text || "{}"); } catch { return; }
    const { download, toast } = await import("./search/dom.js");
    if (said.download) download(said.download);
    if (said.say) toast(said.say);
  }

  const search = (element) => import("./search/main.js").then(({ start }) => start(element)); // beside this file

  return { one, all, make, pictureDialog, panel, head, search, signal };
})();
