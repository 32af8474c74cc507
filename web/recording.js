/**
 * A call as a stereo file, caller left, agent right: Ogg/Opus where the browser codes it, WAV elsewhere. Frames are
 * float32[1920] at 48 kHz: 960 samples of the caller, then 960 of the agent.
 */

import { OpusEncoder, PCM_RATE, toPcm } from "./codec.js";
import { OggWriter } from "./ogg.js";
import { RATE } from "./opus.js";
import { Resampler } from "./resampler.js";

const FRAME = RATE / 50;
/** Packets a page: a second. */
const PAGE = 50;

/** Ogg/Opus, about 0.7 MB a minute. */
export class OpusRecording {
  /** @type {Uint8Array[]} */
  #packets = [];
  #ogg = new OggWriter({ serial: 1, channels: 2, preSkip: 312 });
  #pages = [this.#ogg.headers()];
  #encoder = new OpusEncoder(2, (packet) => this.#packet(packet), () => this.#encoder.close());

  /** @param {Uint8Array} packet */
  #packet(packet) {
    if (this.#packets.length === PAGE) this.#page(false);
    this.#packets.push(packet);
  }

  /** @param {boolean} last */
  #page(last) {
    this.#pages.push(this.#ogg.page(this.#packets, this.#packets.length * FRAME, last));
    this.#packets = [];
  }

  /** @param {Float32Array<ArrayBuffer>} frame */
  frame(frame) {
    this.#encoder.encode(frame);
  }

  /** @returns {Promise<Blob>} */
  async finish() {
    await this.#encoder.flush().catch(() => {});
    this.#encoder.close();
    if (this.#packets.length) this.#page(true);
    return new Blob(this.#pages, { type: "audio/ogg" });
  }
}

/** WAV, 16 bits at 24 kHz, about 5.8 MB a minute. */
export class WavRecording {
  /** @type {Blob[]} */
  #blobs = [];
  #sides = [new Resampler(RATE, PCM_RATE), new Resampler(RATE, PCM_RATE)];

  /** @param {Float32Array<ArrayBuffer>} frame */
  frame(frame) {
    const [left, right] = this.#sides.map((side, index) => side.process(frame.subarray(index * FRAME, (index + 1) * FRAME)));
    const both = new Float32Array(2 * left.length);
    left.forEach((sample, at) => {
      both[2 * at] = sample;
      both[2 * at + 1] = right[at];
    });
    this.#blobs.push(new Blob([toPcm(both)]));
  }

  /** @returns {Promise<Blob>} */
  async finish() {
    const size = this.#blobs.reduce((sum, blob) => sum + blob.size, 0);
    const header = new DataView(new ArrayBuffer(44));
    const text = (/** @type {number} */ at, /** @type {string} */ word) =>
      [...word].forEach((letter, index) => header.setUint8(at + index, letter.charCodeAt(0)));
    text(0, "RIFF");
    header.setUint32(4, 36 + size, true);
    text(8, "WAVEfmt ");
    header.setUint32(16, 16, true);
    header.setUint16(20, 1, true);
    header.setUint16(22, 2, true);
    header.setUint32(24, PCM_RATE, true);
    header.setUint32(28, PCM_RATE * 4, true);
    header.setUint16(32, 4, true);
    header.setUint16(34, 16, true);
    text(36, "data");
    header.setUint32(40, size, true);
    return new Blob([header.buffer, ...this.#blobs], { type: "audio/wav" });
  }
}
