/**
 * Sound to wire and back: Opus through WebCodecs in Ogg pages, or plain 16-bit samples where a browser has no such Opus.
 * Runs beside the page, in the line's worker. Microphone frames are float32[960], mono, 48 kHz.
 */

import { OggReader, OggWriter } from "./ogg.js";
import { PACKET_US, RATE, opus, opusDecoding } from "./opus.js";
import { Resampler } from "./resampler.js";

/** Rate of plain samples on the wire, the server's own. */
export const PCM_RATE = 24000;

/** Codes frames of one or two channels as Opus packets. */
export class OpusEncoder {
  #encoder;
  #channels;
  #timestamp = 0;

  /**
   * @param {number} channels
   * @param {(packet: Uint8Array) => void} give takes each packet
   * @param {(error: Error) => void} fail the encoder broke; nothing more comes
   */
  constructor(channels, give, fail) {
    this.#channels = channels;
    this.#encoder = new AudioEncoder({
      output: (chunk) => {
        const packet = new Uint8Array(chunk.byteLength);
        chunk.copyTo(packet);
        give(packet);
      },
      error: fail,
    });
    this.#encoder.configure(opus(channels));
  }

  /** @param {Float32Array<ArrayBuffer>} samples one channel after the other */
  encode(samples) {
    const data = new AudioData({
      format: "f32-planar",
      sampleRate: RATE,
      numberOfFrames: samples.length / this.#channels,
      numberOfChannels: this.#channels,
      timestamp: this.#timestamp,
      data: samples,
    });
    this.#timestamp += PACKET_US;
    this.#encoder.encode(data);
    data.close();
  }

  /** Give what is still inside. */
  async flush() {
    await this.#encoder.flush();
  }

  close() {
    if (this.#encoder.state !== "closed") this.#encoder.close();
  }
}

/** The caller's voice as pieces of an Ogg/Opus stream: one 20 ms packet a page, sent at once. */
export class OpusUplink {
  #encoder;

  /**
   * @param {(bytes: Uint8Array) => void} give
   * @param {(error: Error) => void} fail
   */
  constructor(give, fail) {
    const serial = crypto.getRandomValues(new Uint32Array(1))[0];
    const ogg = new OggWriter({ serial, channels: 1, preSkip: 312 });
    give(ogg.headers());
    this.#encoder = new OpusEncoder(1, (packet) => give(ogg.page([packet], RATE / 50)), fail);
  }

  /** @param {Float32Array<ArrayBuffer>} frame */
  frame(frame) {
    this.#encoder.encode(frame);
  }

  close() {
    this.#encoder.close();
  }
}

/** The caller's voice as s16le at 24 kHz. */
export class PcmUplink {
  #resampler = new Resampler(RATE, PCM_RATE);
  #give;

  /** @param {(bytes: Uint8Array) => void} give */
  constructor(give) {
    this.#give = give;
  }

  /** @param {Float32Array} frame */
  frame(frame) {
    const bytes = toPcm(this.#resampler.process(frame));
    if (bytes.length) this.#give(bytes);
  }

  close() {}
}

/** The agent's voice out of an Ogg/Opus stream. */
export class OpusDownlink {
  #reader = new OggReader();
  #decoder;
  #timestamp = 0;

  /**
   * @param {number} rate samples a second that `give` wants
   * @param {(samples: Float32Array<ArrayBuffer>) => void} give
   * @param {(error: Error) => void} fail
   */
  constructor(rate, give, fail) {
    const resampler = new Resampler(RATE, rate);
    this.#decoder = new AudioDecoder({
      output: (data) => {
        const samples = new Float32Array(data.numberOfFrames);
        data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        data.close();
        give(/** @type {Float32Array<ArrayBuffer>} */ (resampler.process(samples)));
      },
      error: fail,
    });
    // No stream description: the header's pre-skip would cut the beginning off, and a live call has none to spare.
    this.#decoder.configure(opusDecoding);
  }

  /** @param {Uint8Array} bytes */
  bytes(bytes) {
    for (const packet of this.#reader.append(bytes)) {
      this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: this.#timestamp, data: packet }));
      this.#timestamp += PACKET_US;
    }
  }

  close() {
    if (this.#decoder.state !== "closed") this.#decoder.close();
  }
}

/** The agent's voice out of s16le at 24 kHz. */
export class PcmDownlink {
  #resampler;
  #give;

  /**
   * @param {number} rate
   * @param {(samples: Float32Array<ArrayBuffer>) => void} give
   */
  constructor(rate, give) {
    this.#resampler = new Resampler(PCM_RATE, rate);
    this.#give = give;
  }

  /** @param {Uint8Array} bytes whole samples */
  bytes(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const samples = new Float32Array(bytes.byteLength >> 1);
    for (let at = 0; at < samples.length; at++) samples[at] = view.getInt16(2 * at, true) / 0x8000;
    this.#give(/** @type {Float32Array<ArrayBuffer>} */ (this.#resampler.process(samples)));
  }

  close() {}
}

/**
 * Samples as s16le, full scale at 1.0.
 * @param {Float32Array} samples
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function toPcm(samples) {
  const bytes = new Uint8Array(2 * samples.length);
  const view = new DataView(bytes.buffer);
  samples.forEach((sample, at) => view.setInt16(2 * at, Math.round(Math.max(-1, Math.min(1, sample)) * 0x7fff), true));
  return bytes;
}
