"use strict";
// Translates in a worker, so that the page stays responsive. ONNX Runtime Web and resampling.js stand in front of this.
// Packs of generators are described in weights.py.

const memories = [];  // of WebAssembly, to say how much it took
const PlainMemory = WebAssembly.Memory;
WebAssembly.Memory = function (descriptor) {
  const memory = new PlainMemory(descriptor);
  memories.push(memory);
  return memory;
};
WebAssembly.Memory.prototype = PlainMemory.prototype;

let backend = "";
const sessions = new Map();  // by direction

const tasks = {
  async start(message) {
    backend = message.backend;
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = message.threads;
    ort.env.wasm.wasmPaths = {mjs: URL.createObjectURL(new Blob([message.loader], {type: "text/javascript"}))};
    ort.env.wasm.wasmBinary = message.wasm;
  },

  async load({direction, content}) {
    const {header, part} = opened(content);
    const session = await ort.InferenceSession.create(part(header.graph, Uint8Array), {
      executionProviders: [backend],
      externalData: [{path: "weights", data: new Uint8Array(widened(header.tensors, part).buffer)}],
      enableMemPattern: false,  // else a plan of all buffers would be kept for each size of images
      // An operator that WebGPU does not have is an error, not computed elsewhere without a word.
      extra: backend === "webgpu" ? {session: {disable_cpu_ep_fallback: "1"}} : {},
    });
    const check_db = await checked(session, header.check, part);
    sessions.set(direction, session);
    return {check_db};
  },

  async translate({id, direction, rgba, width, height, to, channels, multiple, tile, overlap}) {
    const began = performance.now(), session = sessions.get(direction), [from, into] = channels;
    const samples = resized(samplesOf(new Uint8ClampedArray(rgba), from), height, width, to.height, to.width, from);
    const padded = reflected(samples, to.height, to.width, from, multiple);
    const tall = places(padded.height, tile, overlap), wide = places(padded.width, tile, overlap);
    const translated = new Float32Array(into * padded.height * padded.width);
    let done = 0;
    for (const row of tall) for (const column of wide) {
      postMessage({id, progress: done++, of: tall.length * wide.length});
      const values = await session.run({image: signed(padded, row, column, from)});
      blend(translated, padded, values.translated.data, row, column, into);
      values.translated.dispose();
    }
    const result = colours(translated, padded, to, into);
    const memory = Math.max(0, ...memories.map(m => m.buffer.byteLength));
    const answer = {rgba: result.buffer, ...to, passes: done, seconds: (performance.now() - began) / 1000, memory};
    return [answer, [result.buffer]];
  },
};

onmessage = async ({data}) => {
  try {
    const answer = await tasks[data.type](data);
    const [result, transferred] = Array.isArray(answer) ? answer : [answer, []];
    postMessage({id: data.id, result}, transferred);
  } catch (error) {
    postMessage({id: data.id, error: String(error && error.message || error)});
  }
};

// --- packs -----------------------------------------------------------------------------------------------------------

function opened(content) {
  const length = new DataView(content).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  return {header, part: ([begin, bytes], Type) => new Type(content, 4 + length + begin, bytes / Type.BYTES_PER_ELEMENT)};
}

/** Returns the weights of all tensors in float32, one behind the other. */
function widened(tensors, part) {
  const result = new Float32Array(tensors.reduce((sum, {count}) => sum + count, 0));
  let begin = 0;
  for (const {kind, count, inner, channels, scales, values} of tensors) {
    const target = result.subarray(begin, begin += count);
    if (kind === "float16") halves(part(values, Uint16Array), target);
    else {
      const stored = part(values, Int8Array), steps = part(scales, Float32Array);
      for (let i = 0; i < count; i++) target[i] = stored[i] * steps[Math.floor(i / inner) % channels];
    }
  }
  return result;
}

/** Widens float16, as bits, to float32. */
function halves(stored, target) {
  for (let i = 0; i < stored.length; i++) {
    const bits = stored[i], exponent = bits >> 10 & 31, fraction = bits & 1023;
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    target[i] = bits & 32768 ? -size : size;
  }
}

/** Returns how near this browser comes to PyTorch on a picture of the pack, in dB; raises where it is no translation. */
async function checked(session, {side, samples, reference, expected_db}, part) {
  const stored = part(samples, Uint8Array), exact = part(reference, Uint16Array);
  const image = {samples: stored, height: side, width: side};
  const whole = {begin: 0, length: side};
  const {translated} = await session.run({image: signed(image, whole, whole, stored.length / side / side)});
  const found = translated.data, area = side * side, into = found.length / area;
  let squares = 0;
  for (let c = 0; c < into; c++)
    for (let i = 0; i < area; i++) squares += (found[c * area + i] - (exact[i * into + c] / 32767.5 - 1)) ** 2;
  const db = squares === 0 ? 120 : Math.min(120, 10 * Math.log10(4 * found.length / squares));
  // 60 dB is far below a step of 8 bits. NaN is below, too.
  const least = Math.min(expected_db, 60) - 3;
  if (!(db >= least)) throw new Error(`its results are wrong: ${db.toFixed(1)} dB from PyTorch's on a test picture, expected are ${least.toFixed(1)}`);
  return db;
}

// --- pixels ----------------------------------------------------------------------------------------------------------

/** Returns RGB, or the grey of Pillow (ITU-R BT.601), of opaque pixels. */
function samplesOf(rgba, channels) {
  const count = rgba.length / 4, result = new Uint8Array(count * channels);
  for (let i = 0, at = 0; i < count; i++, at += 4)
    if (channels === 1) result[i] = rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 32768 >> 16;
    else for (let c = 0; c < 3; c++) result[3 * i + c] = rgba[at + c];
  return result;
}

/** Returns samples with sides that a generator takes, multiples of `multiple` and at least 8, by reflection. */
function reflected(samples, height, width, channels, multiple) {
  const side = length => Math.max(8, Math.ceil(length / multiple) * multiple);
  const toHeight = side(height), toWidth = side(width);
  if (toHeight === height && toWidth === width) return {samples, height, width};
  const mirrored = (place, length) => {
    if (length === 1) return 0;
    place %= 2 * length - 2;
    return place < length ? place : 2 * length - 2 - place;
  };
  const result = new Uint8Array(toHeight * toWidth * channels);
  for (let y = 0; y < toHeight; y++)
    for (let x = 0; x < toWidth; x++)
      for (let c = 0; c < channels; c++)
        result[(y * toWidth + x) * channels + c] = samples[(mirrored(y, height) * width + mirrored(x, width)) * channels + c];
  return {samples: result, height: toHeight, width: toWidth};
}

/** Returns a part of an image as a tensor [1, C, H, W] in [-1, 1]. */
function signed({samples, width}, row, column, channels) {
  const [height, length] = [row.length, column.length], values = new Float32Array(channels * height * length);
  for (let c = 0, at = 0; c < channels; c++)
    for (let y = row.begin; y < row.begin + height; y++)
      for (let x = column.begin; x < column.begin + length; x++) values[at++] = samples[(y * width + x) * channels + c] / 127.5 - 1;
  return new ort.Tensor("float32", values, [1, channels, height, length]);
}

/** Returns pixels RGBA of values [C, H, W] in [-1, 1], without what was padded. Raises where one is not finite. */
function colours(values, {height, width}, to, channels) {
  const result = new Uint8ClampedArray(to.width * to.height * 4), area = height * width;
  for (let y = 0, at = 0; y < to.height; y++)
    for (let x = 0; x < to.width; x++, at += 4) {
      for (let c = 0; c < 3; c++) {
        const value = values[(channels === 1 ? 0 : c) * area + y * width + x];
        if (!Number.isFinite(value)) throw new Error("the translation is not finite");
        result[at + c] = halfToEven((value + 1) * 127.5);
      }
      result[at + 3] = 255;
    }
  return result;
}

// --- tiles -----------------------------------------------------------------------------------------------------------

/** Returns where tiles lie along a side, and their weights there, whose sum is 1 at each place. */
function places(length, tile, overlap) {
  if (!tile || length <= tile) return [{begin: 0, length, weights: null}];
  const count = Math.ceil((length - overlap) / (tile - overlap));
  const begins = Array.from({length: count}, (_, i) => Math.round((length - tile) * i / (count - 1) / 4) * 4);
  const sums = new Float32Array(length);
  const all = begins.map((begin, i) => {
    const weights = Float32Array.from({length: tile}, (_, x) =>
      Math.min(1, i ? (x + 0.5) / overlap : 1, i < count - 1 ? (tile - x - 0.5) / overlap : 1));
    weights.forEach((weight, x) => sums[begin + x] += weight);
    return {begin, length: tile, weights};
  });
  for (const {begin, weights} of all) weights.forEach((weight, x) => weights[x] = weight / sums[begin + x]);
  return all;
}

function blend(target, {height, width}, values, row, column, channels) {
  let at = 0;
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < row.length; y++) {
      const share = row.weights ? row.weights[y] : 1, line = (c * height + row.begin + y) * width + column.begin;
      for (let x = 0; x < column.length; x++) target[line + x] += values[at++] * share * (column.weights ? column.weights[x] : 1);
    }
}
