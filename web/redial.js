/** Calls a busy server again by itself, and says when. */

import { announce } from "./dom.js";

/** Pauses between calls, in seconds; the last one again and again, and how often at most. */
const PAUSES_S = [15, 30, 60];
const MOST = 15;

/** Counts the calls in a row that found everyone busy. */
export class Redial {
  #calls = 0;
  #timer = 0;

  /** Somebody else is called, or the caller does it. */
  reset() {
    this.#calls = 0;
  }

  cancel() {
    clearInterval(this.#timer);
  }

  /**
   * Call again in a while, unless that was done often enough.
   * @param {string} why
   * @param {HTMLElement} place where it counts down
   * @param {() => void} call
   */
  later(why, place, call) {
    if (this.#calls === MOST) return;
    const pause = PAUSES_S[Math.min(this.#calls, PAUSES_S.length - 1)];
    const end = performance.now() + pause * 1000;
    announce(`Everyone is busy. ${why} This page tries again in ${pause} seconds.`);
    const tick = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      place.textContent = `${why} This page tries again in ${Math.max(left, 0)} seconds.`;
      if (left > 0) return;
      this.#calls += 1;
      this.cancel();
      call();
    };
    this.#timer = setInterval(tick, 250);
    tick();
  }
}
