/** Takes sound off the device: one or two channels, resampled to 48 kHz, in exact frames of 20 ms. */

import { Resampler } from "./resampler.js";

const RATE = 48000;
const FRAME = RATE / 50;
/** The page's meter gets one level for each two frames: 25 a second. */
const LEVEL_FRAMES = 2;

/**
 * Input: the channels named by `processorOptions.channels`, silence for one that is not connected.
 * To the port it is given: `{ samples: float32[channels * 960], time }`, where `time` (ms) is that of the last sample.
 * To the page: the peak level, 25 times a second.
 */
class Capture extends AudioWorkletProcessor {
  #channels;
  #resamplers;
  #frame;
  #filled = 0;
  #frames = 0;
  #peak = 0;
  #silence = new Float32Array(128);
  /** @type {MessagePort | null} */
  #line = null;

  /** @param {{ processorOptions: { channels: number } }} options */
  constructor({ processorOptions }) {
    super();
    this.#channels = processorOptions.channels;
    this.#resamplers = Array.from({ length: this.#channels }, () => new Resampler(sampleRate, RATE));
    this.#frame = new Float32Array(this.#channels * FRAME);
    this.port.onmessage = ({ data }) => (this.#line = data);
  }

  /** @param {Float32Array[][]} inputs */
  process([input]) {
    const pieces = this.#resamplers.map((resampler, channel) => resampler.process(input[channel] ?? this.#silence));
    const length = pieces[0].length;
    for (let at = 0; at < length; at++) {
      for (let channel = 0; channel < this.#channels; channel++) {
        const sample = pieces[channel][at];
        this.#frame[channel * FRAME + this.#filled] = sample;
        this.#peak = Math.max(this.#peak, Math.abs(sample));
      }
      if (++this.#filled === FRAME) this.#give();
    }
    return true;
  }

  #give() {
    const samples = this.#frame;
    this.#frame = new Float32Array(this.#channels * FRAME);
    this.#filled = 0;
    this.#line?.postMessage({ samples, time: Date.now() }, [samples.buffer]);
    if (++this.#frames % LEVEL_FRAMES) return;
    this.port.postMessage(this.#peak);
    this.#peak = 0;
  }
}

registerProcessor("capture", Capture);
