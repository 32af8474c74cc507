/**
 * A streaming change of sample rate by a windowed sinc: exact for any two rates, a millisecond of delay, about 80 dB of
 * stop band.
 */

/** Zero crossings of the sinc on each side, at the lower of the two rates. */
const CROSSINGS = 24;
/** Kaiser window's shape: with 48 taps the edge falls from full level to the stop band within a fifth of the band. */
const BETA = 8;
/** Where the level is halved, as a part of the lower rate's band, so that the stop band begins at its very end. */
const CUTOFF = 0.89;

/** @type {(a: number, b: number) => number} */
const divisor = (a, b) => (b ? divisor(b, a % b) : a);

/** Modified Bessel function of order zero. @param {number} x */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** Changes one channel from one sample rate to another, piece by piece. */
export class Resampler {
  #up;
  #down;
  #taps;
  /** One row of taps for each place that an output sample can have between two input samples. */
  #bank;
  #history;
  /** Place of the next output sample, in steps of 1/up input samples after the history's first window. */
  #phase = 0;

  /**
   * @param {number} from samples a second going in, a whole number
   * @param {number} to samples a second coming out, a whole number
   */
  constructor(from, to) {
    if (!(Number.isInteger(from) && Number.isInteger(to) && from > 0 && to > 0)) {
      throw new RangeError(`Sample rates must be whole numbers above 0, not ${from} and ${to}.`);
    }
    const common = divisor(from, to);
    this.#up = to / common;
    this.#down = from / common;
    const scale = Math.min(1, to / from);
    const half = Math.ceil(CROSSINGS / scale);
    this.#taps = 2 * half;
    this.#bank = new Float32Array(this.#up * this.#taps);
    for (let phase = 0; phase < this.#up; phase++) this.#design(phase, half, scale * CUTOFF);
    this.#history = new Float32Array(this.#taps - 1);
  }

  /**
   * @param {number} phase
   * @param {number} half
   * @param {number} cutoff
   */
  #design(phase, half, cutoff) {
    const row = this.#bank.subarray(phase * this.#taps, (phase + 1) * this.#taps);
    let sum = 0;
    for (let tap = 0; tap < this.#taps; tap++) {
      const x = tap - half + 1 - phase / this.#up;
      const edge = Math.max(0, 1 - (x / half) ** 2);
      const sinc = x === 0 ? cutoff : Math.sin(Math.PI * cutoff * x) / (Math.PI * x);
      row[tap] = (sinc * bessel(BETA * Math.sqrt(edge))) / bessel(BETA);
      sum += row[tap];
    }
    for (let tap = 0; tap < this.#taps; tap++) row[tap] /= sum;
  }

  /**
   * Take samples and give those that follow from them; lengths differ by a sample from piece to piece.
   * @param {Float32Array} input
   * @returns {Float32Array}
   */
  process(input) {
    if (this.#up === this.#down) return input;
    const samples = new Float32Array(this.#history.length + input.length);
    samples.set(this.#history);
    samples.set(input, this.#history.length);
    const windows = samples.length - this.#taps + 1;
    const output = new Float32Array(Math.max(0, Math.ceil((windows * this.#up - this.#phase) / this.#down)));
    for (let index = 0; index < output.length; index++) {
      const start = Math.floor(this.#phase / this.#up);
      const row = (this.#phase % this.#up) * this.#taps;
      let sum = 0;
      for (let tap = 0; tap < this.#taps; tap++) sum += samples[start + tap] * this.#bank[row + tap];
      output[index] = sum;
      this.#phase += this.#down;
    }
    this.#phase -= windows * this.#up;
    this.#history = samples.slice(samples.length - this.#taps + 1);
    return output;
  }
}
