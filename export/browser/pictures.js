"use strict";
// Pictures into the page: files, the clipboard, the camera. page.js translates them.

const MOST_PIXELS = 100 * MEGA;  // of a picture: 400 MB as pixels

// --- pictures in -----------------------------------------------------------------------------------------------------

let given = 0;  // pictures so far: decoding takes its time, and the one that was given last counts

async function take(blob, name) {
  noTrouble();
  const turn = ++given;
  let image;
  try { image = await createImageBitmap(blob); } catch {
    if (turn === given) return complain(new Trouble(`${name} is no picture that this browser can read: give a PNG, JPEG, WebP, GIF or AVIF file.`));
  }
  if (turn !== given) return image?.close();
  if (image.width * image.height > MOST_PIXELS) {
    const has = `${image.width} × ${image.height}`;
    image.close();
    return complain(new Trouble(`${name} has ${has} pixels, and this page takes ${MOST_PIXELS / MEGA} million: make it smaller first.`));
  }
  const canvas = onWhite(image, image.width, image.height);
  image.close();
  return use(canvas, name);
}

/** Draws what may be transparent onto white, as the rest of the project does. */
function onWhite(image, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  return canvas;
}

function use(canvas, name) {
  given++;
  running?.cancel();
  picture = {canvas, name};
  $("name").textContent = `${name}, ${canvas.width} × ${canvas.height}`;
  closeCamera();
  return Promise.resolve().then(whenIdle).then(translate);
}
const whenIdle = async () => { while (running) await new Promise(resolve => setTimeout(resolve, 20)); };

$("file").addEventListener("change", ({target}) => {
  const [file] = target.files;
  if (file) take(file, file.name);
  target.value = "";  // the same file may be chosen again
});
$("example").addEventListener("click", async () => take(await (await fetch(settings.example)).blob(), "example.jpg"));

let within = 0;  // how many elements deep something is dragged
const hasFile = event => [...event.dataTransfer.types].includes("Files");
function lift(by) { within = Math.max(0, within + by); $("drop").classList.toggle("over", within > 0); }
document.addEventListener("dragenter", event => { if (hasFile(event)) { event.preventDefault(); lift(1); } });
document.addEventListener("dragover", event => { if (hasFile(event)) event.preventDefault(); });
document.addEventListener("dragleave", event => { if (hasFile(event)) lift(-1); });
document.addEventListener("drop", event => {
  event.preventDefault();
  lift(-within);
  const [file] = event.dataTransfer.files;
  if (file) take(file, file.name); else complain(new Trouble("What was dropped is no file: save the picture first, then drop the file."));
});
document.addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(one => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); take(file, file.name || "pasted.png"); }
  else complain(new Trouble("The clipboard holds no picture: copy one, then paste it here."));
});

// --- the camera ------------------------------------------------------------------------------------------------------

async function openCamera() {
  noTrouble();
  if (!navigator.mediaDevices?.getUserMedia) return complain(new Trouble("This browser gives pages the camera on https and localhost only, or from the disk: choose a file instead."));
  $("camera").disabled = true;  // or a second click would open it twice, and close it once
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch (error) {
    const said = {NotAllowedError: "it was not allowed: allow it in the browser's settings of this page", NotFoundError: "there is none", NotReadableError: "another program uses it"}[error.name] || error.message;
    $("camera").disabled = false;
    $("camera").focus();
    return complain(new Trouble(`The camera cannot be used, as ${said}; or choose a file.`));
  }
  $("viewfinder").hidden = false;
  $("shoot").focus();
  await $("video").play().catch(() => {});  // it was closed meanwhile
}
function closeCamera() {
  if (!$("video").srcObject) return;
  const hadFocus = $("viewfinder").contains(document.activeElement);
  for (const track of $("video").srcObject?.getTracks() || []) track.stop();
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
  $("camera").disabled = false;
  if (hadFocus) $("camera").focus();
}
function shoot() {
  const {videoWidth: width, videoHeight: height} = $("video");
  if (!width) return complain(new Trouble("The camera gives no picture yet: try again in a moment."));
  return use(onWhite($("video"), width, height), "camera.png");
}
