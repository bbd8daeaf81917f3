"use strict";
// Resizes samples [height, width, channels] as Pillow's bicubic filter does (a = -0.5, widened where an image is made
// smaller), to the same values: in 8 bits by weights of 22 binary digits, one side after the other.

const DIGITS = 22;

function cubic(x) {
  x = Math.abs(x);
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** For each place of a side of `to` pixels: the first pixel of `from` that it is made of, and their weights. */
function weightsOf(from, to, whole) {
  const scale = from / to, wide = Math.max(scale, 1), reach = 2 * wide;
  return Array.from({length: to}, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0), last = Math.min(Math.trunc(centre + reach + 0.5), from);
    const weights = Float64Array.from({length: last - first}, (_, i) => cubic((i + first - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {first, weights: weights.map(w => whole ? Math.trunc(w / sum * 2 ** DIGITS + (w < 0 ? -0.5 : 0.5)) : w / sum)};
  });
}

/** Resizes the middle side of samples [outer, from, inner]. */
function alongSide(samples, outer, from, to, inner) {
  const whole = samples instanceof Uint8Array, result = new samples.constructor(outer * to * inner);
  const weights = weightsOf(from, to, whole);
  for (let o = 0; o < outer; o++)
    for (let place = 0; place < to; place++) {
      const {first, weights: ws} = weights[place];
      for (let i = 0; i < inner; i++) {
        let sum = whole ? 2 ** (DIGITS - 1) : 0;
        for (let k = 0, at = (o * from + first) * inner + i; k < ws.length; k++, at += inner) sum += samples[at] * ws[k];
        result[(o * to + place) * inner + i] = whole ? Math.min(255, Math.max(0, sum >> DIGITS)) : sum;
      }
    }
  return result;
}

/** Resizes uint8 samples; those of one channel in floating point, as the rest of the project does. */
function resized(samples, height, width, toHeight, toWidth, channels) {
  let values = channels === 3 ? samples : Float32Array.from(samples);
  if (toWidth !== width) values = alongSide(values, height, width, toWidth, channels);
  if (toHeight !== height) values = alongSide(values, 1, height, toHeight, toWidth * channels);
  return channels === 3 ? values : Uint8Array.from(values, v => Math.min(255, Math.max(0, halfToEven(v))));
}

function halfToEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
