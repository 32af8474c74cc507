/** Both voices' activity over the call, the agent above and the caller below; with a recording, a place to play from. */

import { clockTime, element } from "./dom.js";
import { overlaps } from "./turns.js";

/** The line is at least this long, so that a call's first seconds do not fill it. */
const SHORTEST_S = 60;

/** The timeline of one call. */
export class Timeline {
  #canvas = element("timeline", HTMLCanvasElement);
  #seek = element("seek", HTMLInputElement);
  #turns;
  #length = SHORTEST_S;
  /** Called with the seconds of the call to play from. @type {(seconds: number) => void} */
  onseek = () => {};

  /** @param {import("./turns.js").Turns} turns */
  constructor(turns) {
    this.#turns = turns;
    this.#seek.hidden = true;
    this.#seek.oninput = () => {
      this.at(this.#seek.valueAsNumber);
      this.onseek(this.#seek.valueAsNumber);
    };
    this.draw(0);
  }

  /** Draw what was said until now. @param {number} seconds of the call @param {boolean} [over] */
  draw(seconds, over = false) {
    this.#length = over ? Math.max(seconds, 1) : Math.max(seconds, SHORTEST_S);
    const canvas = this.#canvas;
    const scale = devicePixelRatio;
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    if (!width) return;
    if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
    if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
    const paint = canvas.getContext("2d");
    if (!paint) return;
    paint.clearRect(0, 0, canvas.width, canvas.height);
    const style = getComputedStyle(canvas);
    const row = height * 0.36;
    /** @type {(spans: import("./turns.js").Span[], name: string, top: number, tall: number) => void} */
    const bars = (spans, name, top, tall) => {
      paint.fillStyle = style.getPropertyValue(name);
      for (const { start, end } of spans) {
        const left = (start / this.#length) * width;
        paint.beginPath();
        paint.roundRect(left, top, Math.max(((end - start) / this.#length) * width, 2 * scale), tall, 2 * scale);
        paint.fill();
      }
    };
    const { you, agent } = this.#turns;
    bars([{ start: 0, end: Math.min(seconds, this.#length) }], "--line", height / 2 - scale, 2 * scale);
    bars(agent.spans, "--agent", height * 0.08, row);
    bars(you.spans, "--you", height * 0.56, row);
    bars(overlaps(agent.spans, you.spans), "--both", height * 0.36, height * 0.28);
  }

  /** There is a recording to play. */
  playable() {
    this.#seek.max = String(this.#length);
    this.#seek.hidden = false;
    this.at(0);
  }

  /** Show the place that is played. @param {number} seconds */
  at(seconds) {
    this.#seek.value = String(seconds);
    this.#seek.ariaValueText = clockTime(seconds);
  }
}
