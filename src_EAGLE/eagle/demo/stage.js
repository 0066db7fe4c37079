const NO_CLASS = 65535;
const [frame, photograph, canvas, tip, legend, list] = [
  ".frame", ".photograph", "canvas", ".tip", ".legend", "ol",
].map((selector) => element.querySelector(selector));
const renamed = {}; // by class id, kept for the next photographs: the model's clusters stay the same
let shown = null, ids = null, borders = null, classes = new Map(), opacity = 0.5, alone = null;
let point = { x: 0.5, y: 0.5 };

const code = (entry) => (entry.id < 0 ? NO_CLASS : entry.id);
const nameOf = (entry) => renamed[entry.id] || entry.name;
const percent = (share) => (share < 0.001 ? "< 0.1" : (100 * share).toFixed(1)) + " %";

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint16Array(await new Response(stream).arrayBuffer());
}

// The same white borders as in the downloaded overlay.
function bordersOf(ids, width, height) {
  const found = new Uint8Array(ids.length), reach = Math.max(1, Math.round(Math.min(width, height) / 500));
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++)
      found[i] =
        (x + reach < width && ids[i] !== ids[i + reach]) || (y + reach < height && ids[i] !== ids[i + reach * width]);
  return found;
}

function draw() {
  if (!shown) return;
  const context = canvas.getContext("2d"), picture = context.createImageData(shown.width, shown.height);
  const pixels = new Uint32Array(picture.data.buffer), colors = {};
  for (const [key, entry] of classes) {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(entry.color.slice(i, i + 2), 16));
    const strength = alone === null ? opacity : key === alone ? Math.max(opacity, 0.6) : 0;
    colors[key] = (Math.round(255 * strength) << 24) | (b << 16) | (g << 8) | r;
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = borders[i] && alone === null ? 0xffffffff : colors[ids[i]];
  context.putImageData(picture, 0, 0);
}

function emphasize(key) {
  if (alone === key) return;
  alone = key;
  requestAnimationFrame(draw);
}

function row(entry) {
  const item = document.createElement("li"), swatch = document.createElement("span");
  const input = document.createElement("input"), share = document.createElement("span");
  item.dataset.id = code(entry);
  swatch.className = "swatch";
  swatch.style.background = entry.color;
  share.className = "share";
  share.textContent = percent(entry.share);
  input.value = nameOf(entry);
  input.placeholder = entry.name;
  input.maxLength = 80;
  input.spellcheck = false;
  input.setAttribute("aria-label", "Name of " + entry.name + ", " + share.textContent + " of the picture");
  input.addEventListener("input", () => (renamed[entry.id] = input.value.trim()));
  input.addEventListener("keydown", (event) => event.key === "Enter" && input.blur());
  input.addEventListener("focus", () => emphasize(code(entry)));
  input.addEventListener("blur", () => emphasize(null));
  item.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && emphasize(code(entry)));
  item.addEventListener("pointerleave", () => emphasize(null));
  item.append(swatch, input, share);
  return item;
}

async function show() {
  if (!props.value) return;
  const value = props.value, unpacked = await inflated(value.ids);
  if (value !== props.value) return; // a newer one has come
  [shown, ids, alone] = [value, unpacked, null];
  classes = new Map(value.classes.map((entry) => [code(entry), entry]));
  borders = bordersOf(ids, value.width, value.height);
  [canvas.width, canvas.height] = [value.width, value.height];
  photograph.src = value.photograph;
  photograph.alt = value.name;
  frame.style.setProperty("--aspect", value.width / value.height);
  canvas.setAttribute("aria-label", "Clusters of " + value.name + ". Arrow keys tell the cluster under a point.");
  list.replaceChildren(...value.classes.map(row));
  element.querySelector(".empty").hidden = true;
  frame.hidden = legend.hidden = false;
  hide();
  draw();
}

function tell({ x, y }) {
  if (!shown) return;
  const column = Math.min(shown.width - 1, Math.floor(x * shown.width));
  const line = Math.min(shown.height - 1, Math.floor(y * shown.height));
  const key = ids[line * shown.width + column], entry = classes.get(key);
  tip.textContent = nameOf(entry) + " · " + percent(entry.share);
  tip.style.setProperty("--color", entry.color);
  tip.style.left = 100 * x + "%";
  tip.style.top = 100 * y + "%";
  tip.classList.toggle("left", x > 0.6);
  tip.classList.toggle("above", y > 0.8);
  tip.hidden = false;
  for (const item of list.children) item.classList.toggle("under", Number(item.dataset.id) === key);
}

function hide() {
  tip.hidden = true;
  for (const item of list.children) item.classList.remove("under");
}

for (const type of ["pointermove", "pointerdown"])
  canvas.addEventListener(type, (event) => {
    const box = canvas.getBoundingClientRect(), inside = (part) => Math.min(1, Math.max(0, part));
    point = { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
    tell(point);
  });
canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
canvas.addEventListener("blur", hide);
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const moved = (value, by) => Math.min(1, Math.max(0, value + by / 40));
  point = { x: moved(point.x, step[0]), y: moved(point.y, step[1]) };
  tell(point);
});

window.eagle = {
  names: () => renamed,
  setOpacity: (value) => {
    opacity = value;
    requestAnimationFrame(draw);
  },
};
watch("value", show);
