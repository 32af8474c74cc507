/** Whose turn it is, from the two sides' levels. All logic: levels in at a steady pace, spans and turns out. */

import { LEVELS_PER_SECOND } from "./echo.js";

/** Peaks above this (-36 dB) may be speech. */
const SPEECH = 0.016;
/** Speech is this many times louder than what is always there: a fan, a street. */
const ABOVE_NOISE = 3;
/** The noise is taken to rise by this much a level, so that a new noise is learnt in about ten seconds. */
const NOISE_RISES = 1.01;
/** As many loud levels in a row (120 ms) begin a span: a click does not. */
const BEGINS = 3;
/** A span goes on over pauses of this many seconds. */
const PAUSE_S = 0.7;

/**
 * @typedef {{ start: number, end: number }} Span in seconds of the call
 * @typedef {"listening" | "heard" | "speaking" | "interrupting" | "both" | "muted"} Turn
 */

/** When one side speaks. */
export class VoiceActivity {
  /** @type {Span[]} */
  spans = [];
  /** Whether it speaks now. */
  active = false;
  #noise = SPEECH / ABOVE_NOISE;
  #loud = 0;

  /**
   * @param {number} level peak, 0 to 1
   * @param {number} seconds of the call
   */
  add(level, seconds) {
    const loud = level > Math.max(SPEECH, ABOVE_NOISE * this.#noise);
    this.#noise = level < this.#noise ? this.#noise + 0.2 * (level - this.#noise) : Math.max(this.#noise * NOISE_RISES, 1e-4);
    this.#loud = loud ? this.#loud + 1 : 0;
    if (!this.active && this.#loud >= BEGINS) {
      this.active = true;
      this.spans.push({ start: Math.max(0, seconds - BEGINS / LEVELS_PER_SECOND), end: seconds });
    }
    const span = this.spans[this.spans.length - 1];
    if (this.active && loud) span.end = seconds;
    if (this.active && seconds - span.end > PAUSE_S) this.active = false;
  }

  /** The newest span. */
  get last() {
    return this.spans.at(-1);
  }
}

/** Both sides of one call. */
export class Turns {
  you = new VoiceActivity();
  agent = new VoiceActivity();

  /**
   * Take the levels of one moment.
   * @param {number} you
   * @param {number} agent
   * @param {boolean} muted
   * @param {number} seconds of the call
   * @returns {Turn}
   */
  add(you, agent, muted, seconds) {
    this.you.add(muted ? 0 : you, seconds);
    this.agent.add(agent, seconds);
    if (muted) return "muted";
    if (!this.you.active) return this.agent.active ? "speaking" : "listening";
    if (!this.agent.active) return "heard";
    return (this.you.last?.start ?? 0) > (this.agent.last?.start ?? 0) ? "interrupting" : "both";
  }
}

/** How long all spans are, in seconds. @param {Span[]} spans */
export const total = (spans) => spans.reduce((sum, { start, end }) => sum + end - start, 0);

/**
 * Where both sides speak at once.
 * @param {Span[]} first in order of time
 * @param {Span[]} second in order of time
 * @returns {Span[]}
 */
export function overlaps(first, second) {
  /** @type {Span[]} */
  const found = [];
  for (let one = 0, other = 0; one < first.length && other < second.length; ) {
    const start = Math.max(first[one].start, second[other].start);
    const end = Math.min(first[one].end, second[other].end);
    if (end > start) found.push({ start, end });
    if (first[one].end < second[other].end) one += 1;
    else other += 1;
  }
  return found;
}
