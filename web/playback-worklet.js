/** Plays the agent's voice out of the playback buffer. */

import { JitterBuffer } from "./jitter.js";

const LEVELS_PER_SECOND = 25;

/**
 * From the port it is given: float32 samples at the context's rate, or "reset" when a new stream begins.
 * To the page, 25 times a second: `{ level, stats }`, the peak level and, once a second, how the buffer goes.
 */
class Playback extends AudioWorkletProcessor {
  #buffer = new JitterBuffer(sampleRate);
  #level = 0;
  #reports = 0;
  #due = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => (data.onmessage = (/** @type {MessageEvent} */ event) => this.#take(event.data));
  }

  /** @param {Float32Array | "reset"} data */
  #take(data) {
    if (data === "reset") this.#buffer.reset();
    else this.#buffer.push(data, currentFrame);
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, [[output]]) {
    this.#buffer.pull(output, currentFrame);
    for (const sample of output) this.#level = Math.max(this.#level, Math.abs(sample));
    if (currentFrame >= this.#due) {
      this.#due += sampleRate / LEVELS_PER_SECOND;
      this.#reports += 1;
      const stats = this.#reports % LEVELS_PER_SECOND ? null : this.#buffer.stats();
      this.port.postMessage({ level: this.#level, stats });
      this.#level = 0;
    }
    return true;
  }
}

registerProcessor("playback", Playback);
