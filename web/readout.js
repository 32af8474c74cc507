/** Figures of the running call: how long the sound is under way, and what was lost. */

import { element, make } from "./dom.js";

/** @typedef {import("./call.js").CallStats} CallStats */

/** @param {number | null | undefined} value */
const ms = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);
/** @param {number | undefined} value */
const count = (value) => String(Math.round(value ?? 0));

/** Name, what it means, and the figure. @type {[string, string, (stats: CallStats) => string][]} */
const ROWS = [
  ["Round trip", "to the server and back", ({ roundTripMs }) => ms(roundTripMs)],
  ["Microphone", "from a sample's capture to the network, 20 ms of it one packet", ({ uplinkMs }) => ms((uplinkMs ?? 0) + 20)],
  ["Server", "audio of yours that waits there", ({ input_lag_ms }) => ms(input_lag_ms)],
  ["Decoding", "from the network to samples", ({ decodeMs }) => ms(decodeMs)],
  ["Playback buffer", "audio that waits to be heard, and the aim", ({ depthMs, targetMs }) => `${ms(depthMs)} / ${ms(targetMs)}`],
  ["Gaps", "times the agent's audio ran out", ({ underruns }) => count(underruns)],
  ["Skipped", "silence and late audio left out", ({ droppedMs }) => ms(droppedMs ?? 0)],
  ["Dropped", "80 ms frames of yours the server left out, and 20 ms packets not sent", ({ dropped, unsent }) => `${count(dropped)} / ${count(unsent)}`],
  ["Codec", "", ({ codec }) => (codec === "opus" ? "Opus" : "PCM, no Opus here")],
];

/** The connection panel. */
export class Readout {
  #values;
  #brief = element("readout-brief", HTMLElement);
  #list = element("readout", HTMLElement);

  constructor() {
    this.#values = ROWS.map(([name, meaning]) => this.#row(name, meaning));
    this.#list.replaceChildren(...this.#values.map((value) => /** @type {HTMLElement} */ (value.parentElement)));
    this.#brief.textContent = "";
  }

  /**
   * @param {string} name
   * @param {string} meaning
   */
  #row(name, meaning) {
    const row = make("div");
    const term = make("dt", "", name);
    if (meaning) term.append(make("small", "", meaning));
    const value = make("dd", "", "–");
    row.append(term, value);
    return value;
  }

  /** @param {CallStats} stats */
  show(stats) {
    ROWS.forEach(([, , figure], index) => (this.#values[index].textContent = figure(stats)));
    this.#brief.textContent = stats.roundTripMs == null ? "" : ms(stats.roundTripMs);
  }

  /** Facts that stay for the whole call. @param {import("./call.js").Ready} ready */
  facts({ session, voice, seed, engine }) {
    for (const [name, text] of [["Model", engine.name], ["Voice", voice], ["Seed", seed], ["Session", session]]) {
      const known = [...this.#list.children].find((row) => row.firstChild?.textContent === name);
      const value = known?.querySelector("dd") ?? this.#row(name, "");
      value.textContent = text;
      if (!known) this.#list.append(/** @type {HTMLElement} */ (value.parentElement));
    }
  }
}
