// Requests to the page's own server, and the thin bar that shows that one takes time.
import { one } from "./dom.js";

const BUSY_MS = 150;
let working = 0;

export class Refused extends Error {
  constructor(message, hint = "") {
    super(message);
    this.hint = hint;
  }
}

function busy(change) {
  working += change;
  const bar = one(".ck-busy");
  if (bar) bar.classList.toggle("ck-is-busy", working > 0);
}

async function answered(request, isQuiet) {
  let timer = 0;
  let isShown = false;
  if (!isQuiet) timer = setTimeout(() => { isShown = true; busy(1); }, BUSY_MS);
  try {
    const answer = await request;
    const kind = answer.headers.get("content-type") || "";
    if (!kind.startsWith("application/json")) throw new Refused((await answer.text()).trim() || "the page cannot answer that");
    const said = await answer.json();
    if (!answer.ok) throw new Refused(said.error || "the page cannot answer that", said.hint);
    return said;
  } catch (error) {
    if (error instanceof TypeError) throw new Refused("clipkit does not answer", "is `clipkit ui` still running?");
    throw error;
  } finally {
    clearTimeout(timer);
    if (isShown) busy(-1);
  }
}

export const post = (name, body, { signal, isQuiet = false } = {}) => answered(fetch(`clipkit/search/${name}`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
}), isQuiet);

export const get = (address) => answered(fetch(address), true);

export const upload = (file, library) => answered(fetch(
  `clipkit/search/picture?${new URLSearchParams({ name: file.name || "picture", library })}`,
  { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file },
), false);

export const thumb = (library, row, what = "thumb") => (
  `clipkit/${what}/${encodeURIComponent(library)}/${row.id}${row.version ? `?v=${row.version}` : ""}`
);
