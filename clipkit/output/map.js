"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("map"), stage = document.getElementById("stage");
  const pen = canvas.getContext("2d"), tip = document.getElementById("tip");
  const count = data.paths.length, UNIT = 65535;
  const MOST_PICTURES = 500, REACH = 14, EDGE = 40, WIDEST = 0.5, DEEPEST = 400; // drawn at once; px; zoom
  const STEP = 3, MOST_IDS = 500; // px between corners of a lasso; of an address that servers take
  const thumbs = new Map(data.thumb_rows.map((row, place) => [row, data.thumbs[place]]));
  const images = new Map(); // decoded thumbnails, made when they are first seen
  const view = { zoom: 1, x: 0.5, y: 0.5 }; // of the middle, from 0 to 1
  let width = 1, height = 1, chosen = null, isDue = false;
  let selected = new Set(), lasso = null, hasLasso = false; // rows; corners while one is drawn; the button is pressed

  const xOf = (row) => data.x[row] / UNIT, yOf = (row) => data.y[row] / UNIT;
  const unit = () => Math.min(width, height) * view.zoom; // px of the whole map
  const toScreen = (x, y) => [(x - view.x) * unit() + width / 2, (y - view.y) * unit() + height / 2];
  const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const colorOf = (cluster) => cluster < 0 ? (isDark() ? "#77777b" : "#9b9b97")
    : `hsl(${(cluster * 137.508) % 360} ${isDark() ? "65% 64%" : "62% 42%"})`;
  const source = (row) => thumbs.has(row) ? `data:image/jpeg;base64,${thumbs.get(row)}` : "";
  const members = data.names.map(() => []);
  for (let row = 0; row < count; row += 1) if (data.cluster[row] >= 0) members[data.cluster[row]].push(row);
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const centers = members.map((rows) => [middle(rows.map(xOf)), middle(rows.map(yOf))]);

  const isFaint = (row) => selected.size ? !selected.has(row) : chosen !== null && data.cluster[row] !== chosen;

  function redraw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => { isDue = false; draw(); });
  }

  function imageOf(row) {
    if (!images.has(row)) {
      const image = new Image();
      image.onload = redraw;
      image.src = source(row);
      images.set(row, image);
    }
    return images.get(row);
  }

  function draw() {
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const visible = [];
    for (let row = 0; row < count; row += 1) {
      const [x, y] = toScreen(xOf(row), yOf(row));
      if (x > -40 && y > -40 && x < width + 40 && y < height + 40) visible.push([row, x, y]);
    }
    const withPicture = visible.filter(([row]) => thumbs.has(row));
    const showsPictures = withPicture.length && withPicture.length <= MOST_PICTURES;
    const radius = Math.max(1.2, Math.min(5, 0.35 * Math.sqrt((width * height) / Math.max(visible.length, 1))));
    for (const [row, x, y] of visible) {
      const cluster = data.cluster[row];
      pen.globalAlpha = isFaint(row) ? 0.15 : 0.85;
      pen.fillStyle = colorOf(cluster);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
    }
    if (showsPictures) drawPictures(withPicture);
    pen.globalAlpha = 1;
    drawNames();
    if (lasso) drawLasso();
  }

  function drawLasso() {
    const ink = getComputedStyle(document.body).getPropertyValue("--best");
    pen.beginPath();
    for (const [x, y] of lasso) pen.lineTo(...toScreen(x, y));
    pen.closePath();
    pen.fillStyle = pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = pen.lineWidth = 1;
  }

  function drawPictures(withPicture) {
    const side = Math.max(14, Math.min(64, 0.75 * Math.sqrt((width * height) / withPicture.length)));
    for (const [row, x, y] of withPicture) {
      const image = imageOf(row);
      if (!image.complete || !image.naturalWidth) continue;
      pen.globalAlpha = isFaint(row) ? 0.25 : 1;
      const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
      const [w, h] = [image.naturalWidth * scale, image.naturalHeight * scale];
      pen.drawImage(image, x - w / 2, y - h / 2, w, h);
      pen.strokeStyle = colorOf(data.cluster[row]);
      pen.strokeRect(x - w / 2, y - h / 2, w, h);
    }
  }

  function drawNames() {
    const ink = getComputedStyle(document.body);
    pen.font = "600 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    const taken = [];
    data.names.forEach((name, cluster) => { // the largest first; a name that would lie on another waits for a zoom
      const [x, y] = toScreen(...centers[cluster]), half = pen.measureText(name).width / 2 + 4;
      const box = [x - half, y - 10, x + half, y + 8];
      if (taken.some((one) => one[0] < box[2] && box[0] < one[2] && one[1] < box[3] && box[1] < one[3])) return;
      taken.push(box);
      pen.strokeStyle = ink.getPropertyValue("--card");
      pen.strokeText(name, x, y + 4);
      pen.fillStyle = ink.getPropertyValue("--ink");
      pen.fillText(name, x, y + 4);
    });
    pen.lineWidth = 1;
  }

  function zoomAt(factor, x = width / 2, y = height / 2) {
    const before = unit();
    view.zoom = Math.max(WIDEST, Math.min(DEEPEST, view.zoom * factor));
    view.x += (x - width / 2) * (1 / before - 1 / unit());
    view.y += (y - height / 2) * (1 / before - 1 / unit());
    redraw();
  }

  function moveBy(x, y) {
    view.x = Math.max(0, Math.min(1, view.x - x / unit()));
    view.y = Math.max(0, Math.min(1, view.y - y / unit()));
    redraw();
  }

  function showRows(rows, margin = 0.005) {
    let [left, top, right, bottom] = [1, 1, 0, 0];
    for (const row of rows) {
      left = Math.min(left, xOf(row)); right = Math.max(right, xOf(row));
      top = Math.min(top, yOf(row)); bottom = Math.max(bottom, yOf(row));
    }
    const [wide, high] = [Math.max(width - 2 * EDGE, 1), Math.max(height - 2 * EDGE, 1)];
    const scale = Math.min(wide / (right - left + 2 * margin), high / (bottom - top + 2 * margin));
    view.zoom = Math.max(WIDEST, Math.min(DEEPEST, scale / Math.min(width, height)));
    [view.x, view.y] = [(left + right) / 2, (top + bottom) / 2];
    redraw();
  }

  function nearest(x, y) {
    let best = -1, least = REACH * REACH;
    for (let row = 0; row < count; row += 1) {
      const [left, top] = toScreen(xOf(row), yOf(row));
      const distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance < least) { least = distance; best = row; }
    }
    return best;
  }

  function showTip(row, x, y) {
    tip.hidden = row < 0;
    if (row < 0) return;
    const picture = document.getElementById("tip-picture");
    if (thumbs.has(row)) picture.src = source(row); else picture.removeAttribute("src");
    document.getElementById("tip-name").textContent = data.names[data.cluster[row]] || "outlier";
    document.getElementById("tip-path").textContent = data.paths[row];
    tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, height - tip.offsetHeight - 4))}px`;
  }

  const pointers = new Map();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    lasso = (hasLasso || event.shiftKey) && pointers.size === 1 ? [toMap(...place(event))] : null; // two fingers zoom
    if (lasso) return showTip(-1);
    showTip(nearest(...place(event)), ...place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event), before = pointers.get(event.pointerId);
    if (!before) return showTip(nearest(...now), ...now);
    if (lasso) {
      if (Math.hypot(now[0] - before[0], now[1] - before[1]) < STEP) return;
      pointers.set(event.pointerId, now);
      lasso.push(toMap(...now));
      return redraw();
    }
    canvas.classList.add("is-moved");
    const other = [...pointers.entries()].find(([id]) => id !== event.pointerId);
    if (other) {
      const span = (from) => Math.hypot(from[0] - other[1][0], from[1] - other[1][1]) || 1;
      zoomAt(span(now) / span(before), ...other[1]);
    } else {
      moveBy(now[0] - before[0], now[1] - before[1]);
    }
    pointers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (lasso && kind === "pointerup") select(lasso.length > 2 ? rowsWithin(lasso) : []);
      lasso = null;
      canvas.classList.remove("is-moved");
    });
  }
  canvas.addEventListener("pointerleave", () => showTip(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(2, ...place(event)));

  function toMap(x, y) {
    return [(x - width / 2) / unit() + view.x, (y - height / 2) / unit() + view.y];
  }

  function rowsWithin(corners) {
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const rows = [];
    for (let row = 0; row < count; row += 1) {
      const [x, y] = [xOf(row), yOf(row)];
      if (x < left || x > right || y < top || y > bottom) continue;
      let isWithin = false; // an odd number of sides lie to the right
      for (let here = 0, before = corners.length - 1; here < corners.length; before = here, here += 1) {
        if ((ys[here] > y) === (ys[before] > y)) continue;
        if (x < xs[here] + (xs[before] - xs[here]) * (y - ys[here]) / (ys[before] - ys[here])) isWithin = !isWithin;
      }
      if (isWithin) rows.push(row);
    }
    return rows;
  }

  const bar = document.getElementById("selection"), howMany = document.getElementById("how-many");
  const toSearch = document.getElementById("to-search"), lassoButton = document.getElementById("lasso");
  function select(rows) {
    selected = new Set(rows);
    bar.hidden = !rows.length;
    if (rows.length) say(`${rows.length.toLocaleString("en")} ${rows.length === 1 ? "picture" : "pictures"}`);
    if (data.search) {
      const ids = rows.slice(0, MOST_IDS).map((row) => data.ids[row]);
      toSearch.href = `${data.search}&set=${ids.join(",")}`;
      toSearch.textContent = rows.length > MOST_IDS ? `Show the first ${MOST_IDS} in Search` : "Show in Search";
    }
    redraw();
  }
  function say(text) {
    howMany.textContent = text;
  }
  function setLasso(isOn) {
    hasLasso = isOn;
    lassoButton.setAttribute("aria-pressed", String(isOn));
    canvas.classList.toggle("has-lasso", isOn);
  }
  const cell = (text) => `"${text.replaceAll('"', '""')}"`;
  function table() {
    const lines = [...selected].map((row) => [data.paths[row], data.names[data.cluster[row]] || ""].map(cell).join(","));
    return ["path,cluster", ...lines, ""].join("\r\n");
  }
  async function copyPaths() {
    const text = [...selected].map((row) => data.paths[row]).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page that is not served by https, or a browser that asks
      const field = element("textarea", text);
      document.body.append(field);
      field.select();
      const isDone = document.execCommand("copy");
      field.remove();
      if (!isDone) return say("The browser does not let this page copy");
    }
    say(`${selected.size.toLocaleString("en")} ${selected.size === 1 ? "path" : "paths"} copied`);
  }
  function saveList() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
    link.download = "selection.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000); // Safari reads it later
  }
  lassoButton.onclick = () => setLasso(!hasLasso);
  document.getElementById("copy").onclick = copyPaths;
  document.getElementById("save").onclick = saveList;
  document.getElementById("clear").onclick = () => select([]);
  toSearch.hidden = !data.search;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    lasso = null;
    setLasso(false);
    select([]);
  });

  const all = () => { choose(null); showRows([...Array(count).keys()]); };
  const keys = {
    "+": () => zoomAt(1.4), "=": () => zoomAt(1.4), "-": () => zoomAt(1 / 1.4), 0: all,
    ArrowLeft: () => moveBy(60, 0), ArrowRight: () => moveBy(-60, 0), ArrowUp: () => moveBy(0, 60), ArrowDown: () => moveBy(0, -60),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.getElementById("closer").onclick = () => zoomAt(1.6);
  document.getElementById("further").onclick = () => zoomAt(1 / 1.6);
  document.getElementById("all").onclick = all;

  const buttons = [];
  function choose(cluster) {
    chosen = cluster;
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(number === cluster)));
    redraw();
  }
  function entry(list, parts, act) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.append(...parts);
    button.onclick = act;
    item.append(button);
    document.getElementById(list).append(item);
    return button;
  }
  function element(name, text = "") {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }
  data.names.forEach((name, cluster) => {
    const dot = element("i");
    const parts = [dot, element("span", name), element("small", members[cluster].length.toLocaleString("en"))];
    buttons.push(entry("clusters", parts, () => {
      if (chosen === cluster) return all();
      choose(cluster);
      showRows(members[cluster]);
    }));
  });
  const paint = () => buttons.forEach((button, cluster) => { button.firstChild.style.background = colorOf(cluster); });
  for (const row of data.outliers) {
    const picture = element("img");
    picture.alt = "";
    picture.loading = "lazy";
    if (thumbs.has(row)) picture.src = source(row);
    const parts = [...(thumbs.has(row) ? [picture] : []), element("span", data.paths[row])];
    entry("outliers", parts, () => {
      choose(null);
      showRows([row], 0.04);
      showTip(row, width / 2, height / 2);
    });
  }
  if (!data.outliers.length) document.getElementById("outliers").append(element("li", "none"));

  let isFirst = true; // nothing is known of the size before
  new ResizeObserver(() => {
    [width, height] = [stage.clientWidth, stage.clientHeight];
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    if (isFirst) all(); else redraw();
    isFirst = false;
  }).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paint(); redraw(); });
  paint();
})();
