// The question as it stands, and the address that keeps it.
export const FAVOURITES = "favourites"; // the album of the star
export const EMPTY = Object.freeze({
  library: "", words: "", picture: "", pictureName: "", preview: "", more: [], less: [], twins: 0, folder: "", since: "",
  until: "", shapes: [], kinds: [], least: "weak", album: "", ids: [],
});
const IN_ADDRESS = {
  q: "words", folder: "folder", since: "since", until: "until", album: "album", twins: "twins", more: "more", less: "less",
  shape: "shapes", type: "kinds", set: "ids", least: "least",
};
const NUMBERS = new Set(["twins", "more", "less", "ids"]);
const LEAST = new Set(["likely", "strong"]);
const MOST_MOVES = 20; // of each kind: what the server takes
const LONGEST = 6000; // characters of an address that are read

const isSet = (name, value) => (Array.isArray(value) ? value.length > 0 : Boolean(value) && value !== EMPTY[name])
  || (name === "least" && value !== "weak");

export function toAddress(question, usual = question.library) { // usual: the library of an address that names none
  const fields = new URLSearchParams();
  for (const [key, name] of Object.entries(IN_ADDRESS)) {
    const value = question[name];
    if (isSet(name, value)) fields.set(key, Array.isArray(value) ? value.join(",") : String(value));
  }
  if (![...fields.keys()].length && question.library === usual) return "";
  fields.set("library", question.library);
  return `?${fields}`;
}

export function fromAddress(text) {
  const fields = new URLSearchParams(text.slice(0, LONGEST));
  const question = { ...EMPTY, library: fields.get("library") || "" };
  for (const [key, name] of Object.entries(IN_ADDRESS)) {
    const value = fields.get(key);
    if (!value || (name === "least" && !LEAST.has(value))) continue;
    if (NUMBERS.has(name)) {
      const ids = value.split(",").map(Number).filter((id) => Number.isSafeInteger(id) && id > 0);
      question[name] = name === "twins" ? ids[0] || 0 : [...new Set(ids)];
    } else {
      question[name] = Array.isArray(EMPTY[name]) ? value.split(",").slice(0, 20) : value;
    }
  }
  return question;
}

// The same, moved towards these pictures ("more") or away from them ("less"); the last ones count.
export function moved(question, kind, ids) {
  const other = kind === "more" ? "less" : "more";
  const without = (list) => list.filter((id) => !ids.includes(id));
  return { ...question, twins: 0, [kind]: [...without(question[kind]), ...ids].slice(-MOST_MOVES), [other]: without(question[other]) };
}

export const toServer = ({ pictureName, preview, ...question }) => question;

export const isSearch = (question) => Boolean(question.words || question.picture || question.more.length
  || question.less.length || question.twins);

// What narrows the pictures, each as a chip: its words, and the question without it.
export function filterChips(question) {
  const chips = [];
  const add = (label, name, without) => chips.push({ label, name, without: { ...question, ...without } });
  if (question.album) add("album", question.album, { album: "" });
  if (question.ids.length) add("chosen by hand", String(question.ids.length), { ids: [] });
  if (question.folder) add("in", question.folder, { folder: "" });
  if (question.since) add("from", question.since, { since: "" });
  if (question.until) add("to", question.until, { until: "" });
  if (question.least !== "weak") add("relevance", question.least === "strong" ? "strong" : "likely or strong", { least: "weak" });
  for (const shape of question.shapes) add("", shape, { shapes: question.shapes.filter((other) => other !== shape) });
  for (const kind of question.kinds) add("", kind, { kinds: question.kinds.filter((other) => other !== kind) });
  return chips;
}
