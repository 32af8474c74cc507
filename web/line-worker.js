/**
 * The line: socket, codec and recording, in a worker with its own ports to the sound worklets, so that a busy page is
 * never heard. The page says `Command`s and is told `Report`s.
 */

import { OpusDownlink, OpusUplink, PcmDownlink, PcmUplink } from "./codec.js";
import { OpusRecording, WavRecording } from "./recording.js";
import { Socket } from "./socket.js";

/**
 * @typedef {{ type: "ports", microphone: MessagePort, speaker: MessagePort, both: MessagePort, rate: number }
 *   | { type: "open", url: string, opus: boolean, resume: boolean }
 *   | { type: "close", goodbye: boolean }
 *   | { type: "check" }
 *   | { type: "record", on: boolean }
 *   | { type: "finish" }} Command
 *
 * @typedef {object} LineStats
 * @property {number | null} roundTripMs to the server and back, the last one measured
 * @property {number | null} uplinkMs from a frame's last sample to the socket, averaged
 * @property {number | null} decodeMs from the socket to decoded samples, averaged
 * @property {number} unsent frames left out because the network was behind
 *
 * @typedef {{ type: "opened" } | { type: "handshake" } | { type: "text", text: string } | { type: "error", message: string }
 *   | { type: "metadata", metadata: Record<string, any> } | { type: "closed", code: number, opened: boolean }
 *   | { type: "stats", stats: LineStats } | { type: "recording", file: Blob | null }
 *   | { type: "codec", message: string }} Report
 */

const STATS_MS = 1000;
const PCM_BEHIND = 32768;

/** A mean that begins anew each time it is read. */
class Mean {
  #sum = 0;
  #count = 0;

  /** @param {number} value */
  add(value) {
    this.#sum += value;
    this.#count += 1;
  }

  /** @returns {number | null} */
  take() {
    const mean = this.#count ? this.#sum / this.#count : null;
    this.#sum = this.#count = 0;
    return mean;
  }
}

/** One call's line; connections come and go on it. */
class Line {
  /** @type {(report: Report) => void} */
  #report;
  /** @type {MessagePort | null} */
  #speaker = null;
  #rate = 48000;
  #opus = true;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {OpusUplink | PcmUplink | null} */
  #uplink = null;
  /** @type {OpusDownlink | PcmDownlink | null} */
  #downlink = null;
  /** @type {OpusRecording | WavRecording | null} */
  #recording = null;
  #recordingOn = false;
  #uplinkMs = new Mean();
  #decodeMs = new Mean();
  /** @type {number | null} */
  #roundTripMs = null;
  #unsent = 0;
  /** Time of the last sample in the frame being coded, and of the last audio message. */
  #frameTime = 0;
  #messageTime = 0;

  /** @param {(report: Report) => void} report */
  constructor(report) {
    this.#report = report;
    setInterval(() => this.#tick(), STATS_MS);
  }

  /** @param {Command} command */
  async command(command) {
    switch (command.type) {
      case "ports":
        this.#speaker = command.speaker;
        this.#rate = command.rate;
        command.microphone.onmessage = ({ data }) => this.#microphone(data);
        command.both.onmessage = ({ data }) => this.#record(data);
        return;
      case "open":
        this.#opus = command.opus;
        return this.#open(command.url, command.resume);
      case "close":
        return this.#hangUp(command.goodbye);
      case "check":
        return this.#socket?.check();
      case "record":
        this.#recordingOn = command.on;
        return;
      case "finish":
        this.#recordingOn = false;
        this.#report({ type: "recording", file: (await this.#recording?.finish()) ?? null });
        this.#recording = null;
        return;
    }
  }

  /**
   * @param {string} url
   * @param {boolean} resume whether it goes on with a conversation
   */
  #open(url, resume) {
    this.#hangUp();
    let opened = false;
    const socket = new Socket(
      url,
      {
        opened: () => {
          opened = true;
          this.#report({ type: "opened" });
        },
        handshake: () => {
          this.#startCodec(socket);
          this.#report({ type: "handshake" });
        },
        audio: (bytes) => {
          this.#messageTime = Date.now();
          this.#downlink?.bytes(bytes);
        },
        text: (text) => this.#report({ type: "text", text }),
        metadata: (metadata) => this.#metadata(metadata),
        error: (message) => this.#report({ type: "error", message }),
        closed: (code) => {
          this.#hangUp();
          this.#report({ type: "closed", code, opened });
        },
      },
      this.#opus ? undefined : PCM_BEHIND,
      resume,
    );
    this.#socket = socket;
  }

  /** Begin both streams of a connection anew. @param {Socket} socket */
  #startCodec(socket) {
    const send = (/** @type {Uint8Array} */ bytes) => {
      socket.audio(bytes);
      if (this.#frameTime) this.#uplinkMs.add(Date.now() - this.#frameTime);
    };
    const play = (/** @type {Float32Array<ArrayBuffer>} */ samples) => {
      this.#decodeMs.add(Date.now() - this.#messageTime);
      this.#speaker?.postMessage(samples, [samples.buffer]);
    };
    const fail = (/** @type {Error} */ error) => this.#report({ type: "codec", message: error.message });
    this.#frameTime = 0;
    this.#speaker?.postMessage("reset");
    this.#uplink = this.#opus ? new OpusUplink(send, fail) : new PcmUplink(send);
    this.#downlink = this.#opus ? new OpusDownlink(this.#rate, play, fail) : new PcmDownlink(this.#rate, play);
  }

  /** @param {boolean} [goodbye] whether the call is over, and not only its connection */
  #hangUp(goodbye = false) {
    this.#uplink?.close();
    this.#downlink?.close();
    this.#socket?.close(goodbye);
    this.#uplink = this.#downlink = this.#socket = null;
    this.#roundTripMs = null;
  }

  /** @param {{ samples: Float32Array<ArrayBuffer>, time: number }} frame */
  #microphone({ samples, time }) {
    if (!this.#uplink || !this.#socket) return;
    if (this.#socket.behind) {
      this.#unsent += 1;
      return;
    }
    this.#frameTime = time;
    this.#uplink.frame(samples);
  }

  /** @param {{ samples: Float32Array<ArrayBuffer> }} frame */
  #record({ samples }) {
    if (!this.#recordingOn) return;
    this.#recording ??= this.#opus ? new OpusRecording() : new WavRecording();
    this.#recording.frame(samples);
  }

  /** @param {Record<string, any>} metadata */
  #metadata(metadata) {
    if (metadata.type === "echo") this.#roundTripMs = performance.now() - metadata.id / 1000;
    else this.#report({ type: "metadata", metadata });
  }

  #tick() {
    if (!this.#uplink || !this.#socket) return;
    this.#socket.metadata({ type: "echo", id: Math.round(performance.now() * 1000) });
    this.#report({
      type: "stats",
      stats: {
        roundTripMs: this.#roundTripMs,
        uplinkMs: this.#uplinkMs.take(),
        decodeMs: this.#decodeMs.take(),
        unsent: this.#unsent,
      },
    });
  }
}

const line = new Line((report) => self.postMessage(report));
self.onmessage = (/** @type {MessageEvent<Command>} */ { data }) => line.command(data);
