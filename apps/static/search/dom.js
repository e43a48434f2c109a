// Small helpers for elements. What comes from file names is only ever set as text.
export const one = (selector, inside = document) => inside.querySelector(selector);
export const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

export function make(tag, name = "", text = "", attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function button(name, text, press, attributes = {}) {
  const node = make("button", name, text, { type: "button", ...attributes });
  node.addEventListener("click", press);
  return node;
}

export function debounced(work, milliseconds) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export function toast(text, undo = null) {
  const old = one(".ck-toast");
  if (old) old.remove();
  const node = make("div", "ck-toast", "", { role: "status" }, [make("span", "", text)]);
  if (undo) node.append(button("ck-undo", "Undo", () => { node.remove(); undo(); }));
  document.body.append(node);
  setTimeout(() => node.remove(), undo ? 15000 : 5000);
}

export function download(address) {
  const link = make("a", "", "", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

// A question in a dialog of its own: what was typed, or null. suggestions: what may be meant.
export function prompt(title, { placeholder = "", hint = "", ok = "OK", suggestions = [] } = {}) {
  return new Promise((resolve) => {
    const input = make("input", "ck-field", "", { type: "text", placeholder, "aria-label": title, maxlength: "4000" });
    const list = make("datalist", "", "", { id: "ck-suggestions" }, suggestions.map((value) => make("option", "", "", { value })));
    if (suggestions.length) input.setAttribute("list", list.id);
    const form = make("form", "", "", { method: "dialog" }, [
      make("h2", "", title), ...(hint ? [make("p", "", hint)] : []), input, list,
      make("div", "ck-row", "", {}, [
        button("ck-button", "Cancel", () => box.close()),
        make("button", "ck-button ck-primary", ok, { type: "submit", value: "ok" }),
      ]),
    ]);
    const box = make("dialog", "ck-prompt", "", { "aria-label": title }, [form]);
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue === "ok" && input.value.trim() ? input.value.trim() : null);
    });
    document.body.append(box);
    box.showModal();
    input.focus();
  });
}
