/**
 * Finds out that the agent hears itself: the microphone's level follows the agent's, a moment later. All logic: levels in
 * at a steady pace, an answer out.
 */

/** Levels a second that `EchoDetector` is given. */
export const LEVELS_PER_SECOND = 25;
/** As much of the past as is compared. */
const WINDOW = 8 * LEVELS_PER_SECOND;
/** Echo comes back within this time. */
const LONGEST_LAG = 0.6 * LEVELS_PER_SECOND;
/** Correlation of the two level curves from which it is called an echo; separate speech stays below 0.4. */
const ECHO = 0.75;
/** Levels below are silence (-54 dB). */
const SILENCE = 0.002;

/** Loudness as the ear orders it: decibels above silence. @param {number} level */
const loudness = (level) => Math.log(Math.max(level, SILENCE) / SILENCE);

/**
 * @param {number[]} first
 * @param {number[]} second
 */
function correlation(first, second) {
  const size = first.length;
  const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / size;
  const [middle1, middle2] = [mean(first), mean(second)];
  let [product, power1, power2] = [0, 0, 0];
  for (let index = 0; index < size; index++) {
    const [a, b] = [first[index] - middle1, second[index] - middle2];
    product += a * b;
    power1 += a * a;
    power2 += b * b;
  }
  // A curve that hardly moves says nothing.
  return Math.min(power1, power2) < 0.1 * size ? 0 : product / Math.sqrt(power1 * power2);
}

/**
 * How well the last seconds of one curve are a later copy of the other.
 * @param {number[]} later
 * @param {number[]} earlier
 */
function best(later, earlier) {
  const copy = later.slice(LONGEST_LAG);
  let most = 0;
  for (let lag = 1; lag <= LONGEST_LAG; lag++) {
    most = Math.max(most, correlation(copy, earlier.slice(LONGEST_LAG - lag, LONGEST_LAG - lag + WINDOW)));
  }
  return most;
}

/** Compares the two sides' levels in a call. */
export class EchoDetector {
  /** @type {number[]} */
  #microphone = [];
  /** @type {number[]} */
  #agent = [];
  #count = 0;

  /**
   * Take the levels of both sides in one moment; true when the microphone picks up the agent. Looks once a second.
   * @param {number} microphone peak, 0 to 1
   * @param {number} agent peak, 0 to 1
   * @returns {boolean}
   */
  add(microphone, agent) {
    this.#microphone.push(loudness(microphone));
    this.#agent.push(loudness(agent));
    if (this.#agent.length > WINDOW + LONGEST_LAG) {
      this.#agent.shift();
      this.#microphone.shift();
    }
    this.#count += 1;
    if (this.#count % LEVELS_PER_SECOND || this.#agent.length < WINDOW + LONGEST_LAG) return false;
    const follows = best(this.#microphone, this.#agent);
    return follows > ECHO && follows > best(this.#agent, this.#microphone);
  }
}
