"use strict";
// Unpacks what the page carries, chooses what computes, and talks to the worker.

const $ = id => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const MEGA = 1e6;

/** A sentence for the person at the page; any other error is a fault of the page. */
class Trouble extends Error {}
class Cancelled extends Error {}

// --- assets ----------------------------------------------------------------------------------------------------------

const carried = new Map();  // compressed, by name; decoded from base64 once

async function compressed(name) {
  if (carried.has(name)) return carried.get(name);
  let content;
  if (settings.beside) content = await fetched(name);
  else {
    const element = $(`asset-${name}`), text = element.textContent;
    content = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), c => c.charCodeAt(0));
    element.remove();
  }
  if (content.length !== settings.assets[name]) throw new Trouble(`This page is incomplete: ${name} has ${content.length} of ${settings.assets[name]} bytes. Get it again.`);
  const blob = new Blob([content]);
  carried.set(name, blob);
  return blob;
}

async function fetched(name) {
  const folder = decodeURIComponent(location.pathname.split("/").pop() || "index.html").replace(/\.html?$/i, "") + "_files";
  if (location.protocol === "file:") throw new Trouble(`This page was opened from a disk, from where a browser does not load the folder ${folder} beside it. Put both on a web server, or have the page written as one file.`);
  let answer;
  try { answer = await fetch(`${encodeURIComponent(folder)}/${name}.bin`); } catch (error) {
    throw new Trouble(`The folder ${folder} beside this page could not be loaded (${error.message}). Check the connection, and reload.`);
  }
  if (!answer.ok) throw new Trouble(`${name}.bin is missing in the folder ${folder} beside this page (status ${answer.status}). Put both on the server.`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(name) {
  const stream = (await compressed(name)).stream().pipeThrough(new DecompressionStream("gzip"));
  try { return await new Response(stream).arrayBuffer(); } catch {
    throw new Trouble(`This page is damaged: ${name} cannot be unpacked. Get it again.`);
  }
}
const textOf = async name => new TextDecoder().decode(await unpacked(name));

// --- what computes ---------------------------------------------------------------------------------------------------

/** What this browser's WebGPU is: {limit} in bytes of a buffer, {software}, or {missing}, a phrase that says why. */
async function lookForGpu() {
  if (!settings.assets["webgpu-wasm"]) return {missing: "this page was written without it"};
  if (!navigator.gpu) return {missing: isSecureContext ? "this browser does not have it" : "browsers have it on https and localhost only"};
  if (!("Suspending" in WebAssembly)) return {missing: "this browser lacks WebAssembly's promise integration, which it needs"};
  let adapter = null;
  try { adapter = await navigator.gpu.requestAdapter(); } catch { /* as where there is none */ }
  if (!adapter) return {missing: "the browser has no GPU for it"};
  const {info, limits} = adapter;
  return {
    software: Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter),
    name: [info.vendor, info.architecture].filter(Boolean).join(" "),
    limit: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize),
  };
}

/** How many threads WebAssembly may have: one where the page is not isolated from others (see deployment.md). */
const threadCount = () => self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;

/** A worker with ONNX Runtime Web on one backend, "wasm" or "webgpu". */
class Engine {
  static async open(backend, gpu) {
    const [library, loader, wasm] = await Promise.all([textOf(`${backend}-library`), textOf(`${backend}-loader`), unpacked(`${backend}-wasm`)]);
    const engine = new Engine(backend, gpu, [library, "\n", $("resampling").textContent, "\n", $("worker").textContent]);
    await engine.call("start", {backend, loader, wasm, threads: engine.threads}, [wasm]);
    return engine;
  }

  constructor(backend, gpu, sources) {
    Object.assign(this, {backend, gpu, threads: backend === "wasm" ? threadCount() : 1, pending: new Map(), loaded: new Map(), next: 0});
    this.address = URL.createObjectURL(new Blob(sources, {type: "text/javascript"}));
    this.worker = new Worker(this.address);
    this.worker.onmessage = ({data}) => this.answered(data);
    this.worker.onerror = event => { event.preventDefault(); this.end(new Error(event.message || "the worker could not be started")); };
  }

  answered({id, result, error, progress, of}) {
    const call = this.pending.get(id);
    if (!call) return;
    if (of) return call.told(progress, of);
    this.pending.delete(id);
    if (error === undefined) call.resolve(result); else call.reject(new Error(error));
  }

  call(type, data, transferred = [], told = () => {}) {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.pending.set(++this.next, {resolve, reject, told});
      this.worker.postMessage({...data, type, id: this.next}, transferred);
    });
  }

  /** Loads the generator of a direction; resolves to how near this browser's results are to PyTorch's, in dB. */
  async load(direction) {
    if (!this.loaded.has(direction)) {
      const content = await unpacked(`model-${direction}`);
      this.loaded.set(direction, await this.call("load", {direction, content}, [content]));
    }
    return this.loaded.get(direction).check_db;
  }

  /** Ends the worker at once, whatever it computes. */
  end(reason) {
    this.ended = reason;
    this.worker.terminate();
    URL.revokeObjectURL(this.address);
    for (const {reject} of this.pending.values()) reject(reason);
    this.pending.clear();
  }

  get words() {
    if (this.backend === "webgpu") return `WebGPU (${this.gpu.name || "GPU"}${this.gpu.software ? ", in software" : ""})`;
    return `WebAssembly with ${this.threads === 1 ? "1 thread" : `${this.threads} threads`}`;
  }
}
