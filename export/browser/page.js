"use strict";
// The page itself: what is said, the comparison, pictures out. pictures.js has the way in, engine.js what computes.

const MOST_BYTES = 2 ** 30;      // of one pass, where the page chooses
const OVERLAP = 64;              // pixels that neighbouring tiles share
const SIZES = [0.5, 1, 1.5, 2, 4];  // of the side that the generator was trained with

const ways = new Map(settings.directions.map(way => [way.direction, way]));
const opposite = {a2b: "b2a", b2a: "a2b"};
let picture = null;     // {canvas, name}
let engine = null;      // or a promise of one
let running = null;     // {cancel} while a translation runs
let speed = null;       // pixels in a second, of the last translation
let shown = null;       // {name, direction} of the result

const direction = () => document.querySelector("[name=direction]:checked").value;
const way = () => ways.get(direction());
const say = text => { $("said").textContent = text; };
const seconds = value => value < 9.95 ? `${value.toFixed(1)} s` : value < 99.5 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
const megabytes = bytes => bytes < 1000 * MEGA ? `${Math.max(1, Math.round(bytes / MEGA))} MB` : `${(bytes / 1000 / MEGA).toFixed(1)} GB`;

function complain(error) {
  if (error instanceof Cancelled) return;
  const text = error instanceof Trouble ? error.message : `The translation failed: ${error.message}.`;
  $("trouble").textContent = text;
  $("trouble").hidden = false;
}
const noTrouble = () => { $("trouble").hidden = true; $("trouble").textContent = ""; };

// --- what computes ---------------------------------------------------------------------------------------------------

/** Returns an engine with the generator of a direction, as was chosen; what was chosen by name works or raises. */
async function openEngine() {
  const chosen = $("backend").value, gpu = await lookForGpu();
  let passedOver = gpu.missing ? `WebGPU is not used: ${gpu.missing}.` : gpu.software ? "WebGPU is not used: it runs in software here." : "";
  if (chosen === "webgpu" && gpu.missing) throw new Trouble(`WebGPU cannot be used: ${gpu.missing}. Choose another under "Compute by".`);
  if (chosen === "webgpu" || (chosen === "auto" && !passedOver)) {
    let made = null;
    try {
      made = await Engine.open("webgpu", gpu);
      made.check_db = await made.load(direction());
      return made;
    } catch (error) {
      made?.end(error);
      if (error instanceof Trouble) throw error;
      if (chosen === "webgpu") throw new Trouble(`WebGPU cannot be used: ${error.message}. Choose another under "Compute by".`);
      passedOver = `WebGPU was given up: ${error.message}.`;
    }
  }
  const made = await Engine.open("wasm", gpu);
  try { made.check_db = await made.load(direction()); } catch (error) { made.end(error); throw error; }
  made.remark = chosen === "auto" ? passedOver : "";
  return made;
}

/** Makes the engine ready, once for all who ask, and says what it is. */
function prepare() {
  if (engine) return engine;
  $("engine").textContent = "Getting ready …";
  const opening = openEngine();
  engine = opening;
  opening.then(made => {
    if (engine !== opening) return made.end(new Cancelled());
    document.body.dataset.backend = made.backend;
    $("engine").textContent = `Computes by ${made.words}: ${made.check_db.toFixed(1)} dB of PSNR to PyTorch on a test picture. ${made.remark || ""}`.trim();
    showPlan();
  }, error => {
    if (engine !== opening) return;
    engine = null;
    $("engine").textContent = "Not ready.";
    complain(error);
  });
  return opening;
}

function closeEngine() {
  engine?.then(made => made.end(new Cancelled()), () => {});
  engine = null;
  delete document.body.dataset.backend;
}

// --- sizes and memory ------------------------------------------------------------------------------------------------

function targetSize() {
  const {width, height} = picture.canvas, chosen = $("size").value;
  const scale = chosen === "own" ? 1 : Number(chosen) / Math.max(width, height);
  const side = length => Math.max(1, Math.round(length * scale));
  return {width: side(width), height: side(height)};
}

/** How many bytes one pass takes, about: at its full size a generator holds four tensors of its first layer at once. */
const bytesOf = ({width, height}) => 4 * 4 * way().width * width * height + 4 * way().parameters;

/** How a picture is translated: {tile} is the side of tiles, 0 for one pass. */
function planned(made) {
  const size = targetSize(), chosen = $("passes").value, tile = Math.max(512, way().size);
  const largest = 4 * way().width * size.width * size.height;
  const fits = bytesOf(size) <= MOST_BYTES && !(made?.backend === "webgpu" && largest > made.gpu.limit);
  const inOne = Math.max(size.width, size.height) <= tile || chosen === "one" || (chosen === "auto" && fits);
  return {size, tile: inOne ? 0 : tile};
}

async function showPlan() {
  $("translate").disabled = !picture;
  $("translate").ariaDisabled = Boolean(running);  // a button that is disabled would lose the focus
  if (!picture) { $("plan").textContent = ""; return; }
  const made = engine ? await engine.catch(() => null) : null;
  if (!picture) return;
  const {size, tile} = planned(made), most = tile || Infinity;
  const bytes = bytesOf({width: Math.min(most, size.width), height: Math.min(most, size.height)});
  $("plan").textContent = `${size.width} × ${size.height} pixels ` + (tile
    ? `in tiles of ${tile} (about ${megabytes(bytes)} of memory): approximate, as each tile is normalised by its own contrast and colours; neighbours share ${OVERLAP} pixels and fade into one another.`
    : `in one pass (about ${megabytes(bytes)} of memory): exact.`);
}

// --- a translation ---------------------------------------------------------------------------------------------------

async function translate() {
  if (!picture || running) return;
  noTrouble();
  const source = picture, chosen = way();
  let cancel;
  const cancelled = new Promise((_, reject) => { cancel = () => reject(new Cancelled()); });
  cancelled.catch(() => {});
  running = {cancel};
  for (const id of ["cancel", "progress"]) $(id).hidden = false;
  $("progress").removeAttribute("value");
  showPlan();
  $("result").setAttribute("aria-busy", "true");
  say("Translating.");
  let clock = 0;
  try {
    const result = await Promise.race([cancelled, compute(source, chosen, id => { clearInterval(clock); clock = id; })]);
    speed = {direction: chosen.direction, pixels: result.width * result.height / result.seconds};
    showResult(source, chosen, result);
    say(`Done in ${seconds(result.seconds)}.`);
  } catch (error) {
    say(error instanceof Cancelled ? "Cancelled." : "");
    closeEngine();  // a worker that computes, or failed for want of memory, is of no more use
    complain(error instanceof Cancelled || error instanceof Trouble ? error : explained(error));
    prepare().catch(() => {});
  } finally {
    clearInterval(clock);
    running = null;
    const hadFocus = document.activeElement === $("cancel");
    for (const id of ["cancel", "progress"]) $(id).hidden = true;
    $("clock").textContent = "";
    $("result").removeAttribute("aria-busy");
    showPlan();
    if (hadFocus) $("translate").focus();  // what is hidden loses the focus, too
  }
}

function explained(error) {
  if (/memory|bad_alloc|alloc|aborted|RangeError|out of bounds|Buffer|device.*lost/i.test(error.message))
    return new Trouble(`This browser could not translate it, for want of memory perhaps (${error.message}). Choose a smaller side, or tiles.`);
  return error;
}

async function compute(source, chosen, ticking) {
  const made = await prepare();
  await made.load(chosen.direction);
  const {size, tile} = planned(made), {width, height} = source.canvas;
  const pixels = source.canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer;
  const began = performance.now();
  const told = {done: 0, of: 0};
  ticking(setInterval(() => showProgress(told, (performance.now() - began) / 1000, size, chosen), 250));
  return made.call("translate", {
    direction: chosen.direction, rgba: pixels, width, height, to: size,
    channels: [chosen.source_channels, chosen.target_channels], multiple: settings.multiple, tile, overlap: OVERLAP,
  }, [pixels], (done, of) => {
    Object.assign(told, {done, of});
    if (of > 1) say(`Tile ${done + 1} of ${of}.`);
  });
}

/** Tiles are counted; within one pass nothing tells how far it is, so that its time is estimated from the last one. */
function showProgress({done, of}, spent, size, chosen) {
  const known = speed && speed.direction === chosen.direction ? size.width * size.height / speed.pixels : 0;
  const share = of > 1 ? done / of : known ? Math.min(0.97, spent / known) : null;
  if (share === null) $("progress").removeAttribute("value"); else $("progress").value = share;
  const left = of > 1 ? done ? spent / done * (of - done) : 0 : known - spent;
  $("clock").textContent = `${of > 1 ? `tile ${done + 1} of ${of}, ` : ""}${seconds(spent)}${left > 0.5 ? `, about ${seconds(left)} left` : ""}`;
}

// --- the comparison --------------------------------------------------------------------------------------------------

function showResult(source, chosen, {rgba, width, height, passes, seconds: spent, memory}) {
  const [before, after] = [$("before"), $("after")];
  for (const canvas of [before, after]) Object.assign(canvas, {width, height});
  const context = before.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source.canvas, 0, 0, width, height);
  after.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0);
  before.setAttribute("aria-label", `the picture ${source.name}`);
  after.setAttribute("aria-label", `its translation, ${chosen.from} to ${chosen.to}`);
  $("stage").style.width = $("slider").style.width = `min(100%, ${Math.max(width, 420)}px, ${(70 * width / height).toFixed(2)}vh)`;
  $("tag-before").textContent = chosen.from;
  $("tag-after").textContent = chosen.to;
  engine?.then(made => {
    $("facts").textContent = `${width} × ${height} pixels, ${passes === 1 ? "in one pass" : `in ${passes} tiles (approximate)`}, ${seconds(spent)} by ${made.words}` + (made.backend === "wasm" ? `, ${megabytes(memory)} of memory.` : ".");
  }, () => {});
  $("back").hidden = !ways.has(opposite[chosen.direction]);
  $("result").hidden = false;
  shown = {name: source.name, direction: chosen.direction};
  document.body.dataset.done = String(Number(document.body.dataset.done || 0) + 1);
  divide(Number($("slider").value));
}

function divide(percent) {
  $("stage").style.setProperty("--cut", `${percent}%`);
  $("slider").value = percent;
  $("slider").setAttribute("aria-valuetext", `picture on the left ${percent} %, translation on the right ${100 - percent} %`);
}

$("slider").addEventListener("input", event => divide(Number(event.target.value)));
function dragged(event) {
  const {left, width} = $("stage").getBoundingClientRect();
  divide(Math.round(Math.min(100, Math.max(0, 100 * (event.clientX - left) / width))));
}
$("stage").addEventListener("pointerdown", event => { $("stage").setPointerCapture(event.pointerId); dragged(event); });
$("stage").addEventListener("pointermove", event => { if (event.buttons) dragged(event); });

function save() {
  const {name, direction: of} = shown;
  $("after").toBlob(blob => {
    if (!blob) return complain(new Trouble("The translation could not be written as a PNG, for want of memory perhaps. Choose a smaller side."));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name.replace(/\.[^.]*$/, "")}-${of}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);  // the download may start late
  }, "image/png");
}

// --- the page --------------------------------------------------------------------------------------------------------

function offerDirections() {
  for (const {direction: name, from, to} of ways.values()) {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, {type: "radio", name: "direction", value: name, checked: !$("directions").querySelector("input")});
    label.append(input, `${from} → ${to}`);
    $("directions").append(label);
  }
}

function offerSizes() {
  const chosen = $("size").value, trained = way().size;
  $("size").replaceChildren(...SIZES.map(factor => {
    const side = Math.round(trained * factor / settings.multiple) * settings.multiple;
    return new Option(`${side} pixels${factor === 1 ? " (as trained)" : ""}`, side, factor === 1, factor === 1);
  }), new Option("as it is", "own"));
  if ([...$("size").options].some(({value}) => value === chosen)) $("size").value = chosen;
}

function describe() {
  const rows = [];
  for (const {direction: name, from, to, parity_db, parameters, size, checkpoint} of ways.values())
    rows.push([`${from} → ${to}`, `${name}, ${(parameters / MEGA).toFixed(1)} million weights in ${settings.weights}, trained at ${size} × ${size}; PSNR to PyTorch in float32 ${parity_db.toFixed(1)} dB where this page was written; checkpoint ${checkpoint.slice(0, 12)}`]);
  rows.push(["written by", `cyclegan-fast ${settings.version}`], ["computes with", `ONNX Runtime Web ${settings.runtime} (MIT License), in float32`]);
  rows.push(["sends", settings.beside ? "nothing: its policy lets the browser load the folder beside it alone" : "nothing: its policy lets the browser load nothing"]);
  const table = document.createElement("table");
  for (const [name, value] of rows) {
    const row = table.insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = value;
  }
  $("about").append(table);
}

$("camera").addEventListener("click", openCamera);
$("close-camera").addEventListener("click", closeCamera);
$("shoot").addEventListener("click", shoot);
$("translate").addEventListener("click", translate);
$("cancel").addEventListener("click", () => running?.cancel());
$("save").addEventListener("click", save);
$("back").addEventListener("click", () => {
  const {name, direction: of} = shown, {width, height} = $("after");
  document.querySelector(`[name=direction][value=${opposite[of]}]`).checked = true;
  offerSizes();
  $("size").value = "own";
  use(onWhite($("after"), width, height), `${name.replace(/\.[^.]*$/, "")}-${of}.png`);
});
document.addEventListener("keydown", event => { if (event.key === "Escape") { if (running) running.cancel(); else if (!$("viewfinder").hidden) closeCamera(); } });
$("options").addEventListener("submit", event => event.preventDefault());
$("options").addEventListener("change", ({target}) => {
  noTrouble();
  if (target.name === "direction") offerSizes();
  if (target.id === "backend") { running?.cancel(); closeEngine(); prepare().catch(() => {}); }
  showPlan();
});

offerDirections();
offerSizes();
describe();
const asked = new URLSearchParams(location.hash.slice(1)).get("backend");
if (asked && [...$("backend").options].some(({value}) => value === asked)) $("backend").value = asked;
prepare().catch(() => {});
