/** The note that counts down to the end of a call, and goes when there is no more need for it. */

import { note } from "./dom.js";

/** What is said for each limit that a server warns of. @type {Record<string, string>} */
const WORDS = {
  idle: "Are you still there? The call ends unless you say something.",
  time: "The call's time is nearly up.",
  shutdown: "The server is about to restart. The call ends.",
};
const MUTED = "You are muted, so nothing is heard from you. Unmute and say something, or the call ends.";

/** One call's warnings; at most one is shown. */
export class Warning {
  #limit = "";
  #end = 0;
  /** @type {import("./dom.js").Note | null} */
  #note = null;

  /**
   * @param {string} limit
   * @param {number} seconds until the call ends
   */
  show(limit, seconds) {
    this.clear();
    this.#limit = limit;
    this.#end = performance.now() + seconds * 1000;
    this.#note = note(WORDS[limit] ?? WORDS.time, seconds);
  }

  /** Count down; to be called a few times a second. @param {boolean} muted */
  tick(muted) {
    if (!this.#note) return;
    const left = Math.max(0, Math.ceil((this.#end - performance.now()) / 1000));
    this.#note.say(this.#limit === "idle" && muted ? MUTED : (WORDS[this.#limit] ?? WORDS.time), `${left} s`);
  }

  /** The caller was heard: the call is not idle. */
  spoke() {
    if (this.#limit === "idle") this.clear();
  }

  clear() {
    this.#note?.remove();
    this.#note = null;
    this.#limit = "";
  }
}
