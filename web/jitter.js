/**
 * The playback buffer: keeps the agent's voice whole when its frames arrive unevenly, with no more delay than that takes.
 *
 * Every arrival shows how early the line can deliver (`earliest`) and how late it has been (`latest`); their distance in
 * the last seconds, and a little, is the delay to keep. When the delay kept is not the one wanted, silence is dropped,
 * or a period of the voice is spliced out or repeated, so the change is not heard and no delay stays for good.
 * All logic, no clock of its own: `now` is the context's time in samples.
 */

const MS = {
  /** The agent's frame. Arrivals come a frame at a time, so the audio waiting swings by this much. */
  frame: 80,
  /** Audio waiting, averaged over a frame, to begin with; and its lower and upper bound while adapting. */
  start: 70,
  least: 40,
  most: 200,
  /** Never more than this waits: what comes on top replaces the oldest. */
  cap: 300,
  /** Kept beyond the jitter seen. */
  safety: 12,
  /** More delay than wanted by this much is left alone; less than wanted, which is nearer to a gap, by a third of it. */
  tolerance: 12,
  /** Jitter is remembered for eight parts of this length. */
  memory: 1000,
  /** Silence is dropped in pieces of this length. */
  piece: 10,
  /** Speech is spliced only after no silence came for this long. */
  patience: 1500,
  /** Time between two splices, so that the speed changes by a tenth at most. */
  rest: 120,
  /** Shortest and longest voice period looked for when splicing, and the length of the cross-fade. */
  shortest: 2.5,
  longest: 12.5,
  fade: 5,
  /** A pause this long in the arrivals is a new beginning, not jitter. */
  pause: 400,
};
const PARTS = 8;
const SILENCE = 0.003;

/**
 * @typedef {object} JitterStats
 * @property {number} depthMs audio waiting, averaged since the last report
 * @property {number} targetMs the average that is aimed for
 * @property {number} underruns how often the audio ran out since the beginning
 * @property {number} droppedMs audio left out since the beginning, silence included
 */

/** One voice's playback buffer. */
export class JitterBuffer {
  #rate;
  #ring;
  #written = 0;
  #read = 0;
  #playing = false;
  #fadeIn = 0;
  #last = 0;
  #lastArrival = -Infinity;
  #since = 0;
  #adjusted = 0;
  #excessSince = -1;
  /** @type {{ begin: number, earliest: number, latest: number }[]} */
  #memory = [];
  #earliest = 0;
  #latest = 0;
  #underruns = 0;
  #dropped = 0;
  #depthSum = 0;
  #pulls = 0;

  /** @param {number} rate samples a second */
  constructor(rate) {
    this.#rate = rate;
    this.#ring = new Float32Array(2 * rate);
  }

  /** @param {keyof typeof MS} name */
  #length(name) {
    return Math.round((MS[name] * this.#rate) / 1000);
  }

  get #depth() {
    return this.#written - this.#read;
  }

  /** Delay to keep, from the earliest time a sample can arrive to its playing, in samples. */
  get #wanted() {
    const jitter = this.#latest - this.#earliest + this.#length("safety");
    const half = this.#length("frame") / 2;
    const young = this.#lastArrival - this.#since < PARTS * this.#length("memory");
    const least = this.#length(young ? "start" : "least") + half;
    return Math.min(Math.max(jitter, least), this.#length("most") + half);
  }

  /** Forget everything but the counts: a new stream begins. */
  reset() {
    this.#read = this.#written;
    this.#playing = false;
    this.#lastArrival = -Infinity;
    this.#excessSince = -1;
  }

  /**
   * Take samples that have just arrived.
   * @param {Float32Array} samples
   * @param {number} now
   */
  push(samples, now) {
    if (!this.#playing && now - this.#lastArrival > this.#length("pause")) {
      this.#memory = [];
      this.#since = now;
    }
    this.#lastArrival = now;
    const begin = now - this.#written;
    for (const sample of samples) this.#ring[this.#written++ % this.#ring.length] = sample;
    this.#remember(now, now - this.#written, begin);
    if (this.#depth > this.#length("cap")) this.#jump(this.#depth - this.#wanted);
  }

  /**
   * @param {number} now
   * @param {number} earliest
   * @param {number} latest
   */
  #remember(now, earliest, latest) {
    let part = this.#memory.at(-1);
    if (!part || now - part.begin >= this.#length("memory")) {
      part = { begin: now, earliest, latest };
      this.#memory.push(part);
      if (this.#memory.length > PARTS) this.#memory.shift();
    }
    part.earliest = Math.min(part.earliest, earliest);
    part.latest = Math.max(part.latest, latest);
    this.#earliest = Math.min(...this.#memory.map((one) => one.earliest));
    this.#latest = Math.max(...this.#memory.map((one) => one.latest));
  }

  /**
   * Fill `output` with what is to be heard now: the voice, or silence while there is none.
   * @param {Float32Array} output
   * @param {number} now
   */
  pull(output, now) {
    output.fill(0);
    if (!this.#playing) {
      if (this.#depth <= 0 || now - this.#read - this.#earliest < this.#wanted) return;
      this.#playing = true;
      this.#fadeIn = this.#length("fade");
    }
    this.#adjust(now);
    this.#depthSum += this.#depth;
    this.#pulls += 1;
    const ready = Math.min(output.length, this.#depth);
    for (let index = 0; index < ready; index++) {
      const gain = this.#fadeIn > 0 ? 1 - this.#fadeIn-- / this.#length("fade") : 1;
      this.#last = gain * this.#ring[this.#read++ % this.#ring.length];
      output[index] = this.#last;
    }
    if (ready === output.length) return;
    // Running out in mid-wave would click: let the last sample die away.
    for (let index = ready; index < output.length; index++) output[index] = this.#last *= 0.9;
    this.#underruns += 1;
    this.#playing = false;
    this.#excessSince = -1;
  }

  /** Bring the delay that is kept nearer to the one wanted. @param {number} now */
  #adjust(now) {
    const excess = now - this.#read - this.#earliest - this.#wanted;
    if (excess <= this.#length("tolerance") && excess >= -this.#length("tolerance") / 3) {
      this.#excessSince = -1;
      return;
    }
    if (this.#excessSince < 0) this.#excessSince = now;
    const piece = this.#length("piece");
    if (excess > 0 && this.#depth > 4 * piece && this.#quiet(2 * piece)) {
      this.#jump(piece);
      return;
    }
    const patience = excess > 0 ? this.#length("patience") : 0;
    if (now - this.#excessSince < patience || now - this.#adjusted < this.#length("rest")) return;
    this.#adjusted = now;
    const period = this.#period(excess > 0 ? 1 : -1);
    if (period) this.#jump(period);
  }

  /** Whether the next samples are silent. @param {number} length */
  #quiet(length) {
    for (let at = this.#read; at < this.#read + length; at++) {
      if (Math.abs(this.#ring[at % this.#ring.length]) > SILENCE) return false;
    }
    return true;
  }

  /**
   * The distance at which the voice ahead (or behind) is most like the voice now; 0 when too little audio waits.
   * @param {1 | -1} direction
   */
  #period(direction) {
    const window = this.#length("fade");
    const longest = this.#length("longest");
    const room = direction > 0 ? this.#depth - window : Math.min(this.#read, this.#ring.length - this.#depth);
    if (room < longest + window || this.#depth < window) return 0;
    let best = -Infinity;
    let period = longest;
    for (let lag = this.#length("shortest"); lag <= longest; lag += 4) {
      let product = 0;
      let energy = 1e-9;
      for (let index = 0; index < window; index += 2) {
        const there = this.#ring[(this.#read + direction * lag + index) % this.#ring.length];
        product += this.#ring[(this.#read + index) % this.#ring.length] * there;
        energy += there * there;
      }
      const likeness = product / Math.sqrt(energy);
      if (likeness > best) [best, period] = [likeness, lag];
    }
    return direction * period;
  }

  /** Go on reading `distance` samples further on (or back), with a cross-fade. @param {number} distance */
  #jump(distance) {
    const fade = this.#playing ? Math.min(this.#length("fade"), this.#depth - Math.max(distance, 0)) : 0;
    const size = this.#ring.length;
    // In the order that never reads a sample already mixed: forwards writes ahead of reading, backwards behind it.
    const mixed = new Float32Array(Math.max(fade, 0));
    for (let index = 0; index < mixed.length; index++) {
      const gain = (index + 1) / (fade + 1);
      const here = this.#ring[(this.#read + index) % size];
      mixed[index] = here + gain * (this.#ring[(this.#read + distance + index) % size] - here);
    }
    this.#read += distance;
    mixed.forEach((sample, index) => (this.#ring[(this.#read + index) % size] = sample));
    this.#dropped += Math.max(distance, 0);
  }

  /**
   * How it goes; averages begin anew.
   * @returns {JitterStats}
   */
  stats() {
    const depth = this.#pulls ? this.#depthSum / this.#pulls : 0;
    this.#depthSum = this.#pulls = 0;
    const ms = 1000 / this.#rate;
    return {
      depthMs: depth * ms,
      targetMs: this.#memory.length ? this.#wanted * ms - MS.frame / 2 : MS.start,
      underruns: this.#underruns,
      droppedMs: this.#dropped * ms,
    };
  }
}
