/** The wire of `/ws/chat`: one connection, messages in and out. The first byte of a message is its kind. */

const Kind = { HANDSHAKE: 0, AUDIO: 1, TEXT: 2, METADATA: 4, ERROR: 5, PING: 6 };

/** Close code of a connection that broke; browsers use it for every reason they do not tell. */
export const LOST = 1006;
/** The server speaks every few seconds in every phase of a call. This long without a word is a dead connection. */
const SILENCE_MS = 10000;
/** In a conversation, or on the way back to one, it speaks every second, and what is lost can be picked up again. */
const SHORT_SILENCE_MS = 5000;
/** How soon it must speak where the network may be another one. */
const CHECK_MS = 1500;
/** What a connection is closed with that the call is to outlive. */
const BACK_SOON = 4100;
/** More unsent bytes than this (about half a second of Opus) and the microphone's frames are left out. */
const BEHIND = 4096;

/**
 * @typedef {object} Listener what a connection reports
 * @property {() => void} opened
 * @property {() => void} handshake the prompt is in place: speak
 * @property {(bytes: Uint8Array) => void} audio
 * @property {(text: string) => void} text
 * @property {(metadata: Record<string, any>) => void} metadata
 * @property {(message: string) => void} error what the server says went wrong
 * @property {(code: number) => void} closed once, and last
 */

/**
 * Metadata, with its seed as text: seeds have 63 bits, more than a number holds here.
 * @param {string} json
 * @returns {Record<string, any>}
 */
const parse = (json) => JSON.parse(json.replace(/("seed":\s*)(\d+)/, '$1"$2"'));

/** One connection; a new call or a reconnection makes a new one. */
export class Socket {
  #socket;
  /** @type {Listener | null} */
  #listener;
  #decoder = new TextDecoder();
  #heard = Date.now();
  #watch;
  #limit;
  #silence;

  /**
   * @param {string} url
   * @param {Listener} listener
   * @param {number} [limit] unsent bytes that are let wait; plain samples need more than Opus
   * @param {boolean} [resume] whether it goes on with a conversation
   */
  constructor(url, listener, limit = BEHIND, resume = false) {
    this.#listener = listener;
    this.#limit = limit;
    this.#silence = resume ? SHORT_SILENCE_MS : SILENCE_MS;
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#listener?.opened();
    this.#socket.onclose = ({ code }) => this.#close(code);
    this.#socket.onmessage = ({ data }) => {
      this.#heard = Date.now();
      if (data instanceof ArrayBuffer && data.byteLength) this.#message(data);
    };
    this.#watch = setInterval(() => {
      if (Date.now() - this.#heard > this.#silence) this.#close(LOST);
    }, 1000);
  }

  /** @param {ArrayBuffer} data */
  #message(data) {
    const listener = this.#listener;
    const body = new Uint8Array(data, 1);
    switch (new Uint8Array(data)[0]) {
      case Kind.HANDSHAKE:
        this.#silence = SHORT_SILENCE_MS;
        return listener?.handshake();
      case Kind.AUDIO:
        return listener?.audio(body);
      case Kind.TEXT:
        return listener?.text(this.#decoder.decode(body));
      case Kind.METADATA:
        return listener?.metadata(parse(this.#decoder.decode(body)));
      case Kind.ERROR:
        return listener?.error(this.#decoder.decode(body));
    }
  }

  /**
   * @param {number} code
   * @param {boolean} [goodbye] whether the call is over, and not only this connection
   */
  #close(code, goodbye = false) {
    clearInterval(this.#watch);
    const listener = this.#listener;
    this.#listener = null;
    this.#socket.close(goodbye ? 1000 : BACK_SOON);
    listener?.closed(code);
  }

  /**
   * @param {number} kind
   * @param {Uint8Array} body
   */
  #send(kind, body) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(1 + body.length);
    message[0] = kind;
    message.set(body, 1);
    this.#socket.send(message);
  }

  /** Whether the network takes less than the microphone gives, so that more would only be late. */
  get behind() {
    return this.#socket.bufferedAmount > this.#limit;
  }

  /** @param {Uint8Array} bytes */
  audio(bytes) {
    this.#send(Kind.AUDIO, bytes);
  }

  /** @param {object} metadata */
  metadata(metadata) {
    this.#send(Kind.METADATA, new TextEncoder().encode(JSON.stringify(metadata)));
  }

  /** Find out soon whether anything still comes. */
  check() {
    const asked = Date.now();
    setTimeout(() => this.#listener && this.#heard < asked && this.#close(LOST), CHECK_MS);
  }

  /** Close; nothing is reported after this. @param {boolean} goodbye whether the call is over, too */
  close(goodbye) {
    this.#listener = null;
    this.#close(1000, goodbye);
  }
}
