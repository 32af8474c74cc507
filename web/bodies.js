/**
 * Paints the living shape of a call: two bodies that meet, the agent left and the caller right. Each swells and ripples with
 * its voice, and where both sound at once their overlap lights up. All painting, in a worker or in the page.
 */

import { LEVELS_PER_SECOND } from "./echo.js";

/** Levels of the past that run around a body, from where it meets the other to its back. */
const PAST = 18;
/** Points of an outline. */
const POINTS = 48;
/** Levels are shown from this many decibels below the loudest. */
const RANGE_DB = 44;
const TEXTURE = 256;

/**
 * How loud a level looks, 0 to 1.
 * @param {number} level peak, 0 to 1
 */
export const loudness = (level) => Math.min(1, Math.max(0, 1 + (20 * Math.log10(Math.max(level, 1e-5))) / RANGE_DB));

/** One side's body. */
class Body {
  #facing;
  /** Loudness, the newest first. */
  #past = new Float32Array(PAST + 3);
  /** The loudness that is shown, which follows the levels smoothly. */
  shown = 0;
  path = new Path2D();

  /** @param {number} facing 1: the other body is on the right; -1: on the left */
  constructor(facing) {
    this.#facing = facing;
  }

  /** @param {number} level */
  add(level) {
    this.#past.copyWithin(1, 0);
    this.#past[0] = 0.45 * loudness(level) + 0.55 * this.#past[1];
  }

  /** The loudness of so many levels ago, with its neighbours' part in it, so that an outline has no corners. @param {number} age */
  #wave(age) {
    const [newer, part] = [Math.floor(age), age % 1];
    const [first, second, third] = this.#past.subarray(newer, newer + 3);
    return 0.5 * ((1 - part) ** 2 * first + (1 + 2 * part - 2 * part ** 2) * second + part ** 2 * third);
  }

  /**
   * Give it its form of this moment.
   * @param {{ x: number, y: number, radius: number, other: number, time: number, since: number, still: boolean }} place
   *   `other` is the loudness of the other body, `since` the part of the time to the next level that is over
   */
  form({ x, y, radius, other, time, since, still }) {
    const now = this.#past[0];
    this.shown += (now - this.shown) * (now > this.shown ? 0.3 : 0.1);
    const size = radius * (1 + 0.3 * this.shown - 0.1 * other * (1 - this.shown));
    this.path = new Path2D();
    if (still) return this.path.arc(x, y, size, 0, 2 * Math.PI);
    /** @type {[number, number][]} */
    const points = [];
    for (let index = 0; index < POINTS; index++) {
      const angle = (2 * Math.PI * index) / POINTS;
      const away = Math.abs(angle > Math.PI ? 2 * Math.PI - angle : angle) / Math.PI;
      const wave = this.#wave(away * (PAST - 1) + 1 - since);
      const drift = Math.sin(3 * angle + 1.1 * time) + Math.sin(2 * angle - 0.8 * time * this.#facing);
      const reach = size * (1 + 0.26 * (wave - 0.6 * this.shown) + 0.012 * drift);
      points.push([x + this.#facing * reach * Math.cos(angle), y + reach * Math.sin(angle)]);
    }
    const [lastX, lastY] = points[POINTS - 1];
    this.path.moveTo((lastX + points[0][0]) / 2, (lastY + points[0][1]) / 2);
    points.forEach(([pointX, pointY], index) => {
      const [nextX, nextY] = points[(index + 1) % POINTS];
      this.path.quadraticCurveTo(pointX, pointY, (pointX + nextX) / 2, (pointY + nextY) / 2);
    });
    this.path.closePath();
  }
}

/**
 * @typedef {{ ball: string, lights: import("./avatar.js").Picture["lights"] }} Surface
 * @typedef {{ agent: Surface, you: Surface, line: string, both: string }} Colors
 *
 * @typedef {{ type: "canvas", canvas: OffscreenCanvas | HTMLCanvasElement }
 *   | { type: "size", width: number, height: number }
 *   | { type: "start", colors: Colors } | { type: "colors", colors: Colors } | { type: "stop" }
 *   | { type: "state", muted: boolean, waiting: boolean, still: boolean }
 *   | { type: "levels", you: number, agent: number }} Command
 *   the caller's body is hollow when muted; `waiting`: nobody can speak yet, or now; `still`: without ripples
 */

/** A body's surface, drawn once. @param {Surface} surface */
function texture({ ball, lights }) {
  const canvas = new OffscreenCanvas(TEXTURE, TEXTURE);
  const paint = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  paint.fillStyle = ball;
  paint.fillRect(0, 0, TEXTURE, TEXTURE);
  for (const { x, y, color } of lights) {
    const [centerX, centerY] = [(0.5 + x) * TEXTURE, (0.5 + y) * TEXTURE];
    const gradient = paint.createRadialGradient(centerX, centerY, 0, centerX, centerY, 0.65 * TEXTURE);
    gradient.addColorStop(0, `${color})`);
    gradient.addColorStop(1, `${color} / 0)`);
    paint.fillStyle = gradient;
    paint.fillRect(0, 0, TEXTURE, TEXTURE);
  }
  return /** @type {CanvasPattern} */ (paint.createPattern(canvas, "no-repeat"));
}

/** The painter of one canvas, told by commands what to show. */
export class Bodies {
  /** @type {OffscreenCanvas | HTMLCanvasElement | null} */
  #canvas = null;
  /** @type {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D | null} */
  #paint = null;
  #agent = new Body(1);
  #you = new Body(-1);
  /** @type {{ agent: CanvasPattern, you: CanvasPattern, line: string, both: string } | null} */
  #colors = null;
  #state = { muted: false, waiting: true, still: false };
  #levelAt = 0;
  #frame = 0;

  /** @param {Command} command */
  command(command) {
    switch (command.type) {
      case "canvas":
        this.#canvas = command.canvas;
        this.#paint = /** @type {OffscreenCanvas} */ (command.canvas).getContext("2d");
        return;
      case "size":
        if (this.#canvas) [this.#canvas.width, this.#canvas.height] = [command.width, command.height];
        return;
      case "start":
        [this.#agent, this.#you] = [new Body(1), new Body(-1)];
        this.#dress(command.colors);
        cancelAnimationFrame(this.#frame);
        this.#frame = requestAnimationFrame(this.#next);
        return;
      case "colors":
        return this.#dress(command.colors);
      case "stop":
        return cancelAnimationFrame(this.#frame);
      case "state":
        this.#state = command;
        return;
      case "levels":
        this.#levelAt = performance.now();
        this.#you.add(this.#state.muted ? 0 : command.you);
        this.#agent.add(command.agent);
        return;
    }
  }

  /** @param {Colors} colors */
  #dress({ agent, you, line, both }) {
    this.#colors = { agent: texture(agent), you: texture(you), line, both };
  }

  #next = (/** @type {number} */ time) => {
    this.#frame = requestAnimationFrame(this.#next);
    if (this.#canvas?.width && this.#paint && this.#colors) this.#draw(time, this.#canvas, this.#paint, this.#colors);
  };

  /**
   * @param {number} time
   * @param {{ width: number, height: number }} size
   * @param {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D} paint
   * @param {{ agent: CanvasPattern, you: CanvasPattern, line: string, both: string }} colors
   */
  #draw(time, { width, height }, paint, { agent, you, line, both }) {
    const { muted, waiting, still } = this.#state;
    const radius = Math.min(height * 0.34, width * 0.21);
    const since = Math.min(1, Math.max(0, ((performance.now() - this.#levelAt) / 1000) * LEVELS_PER_SECOND));
    const common = { y: height / 2, radius, time: time / 1000, since, still };
    const [left, right] = [width / 2 - 0.88 * radius, width / 2 + 0.88 * radius];
    this.#agent.form({ ...common, x: left, other: this.#you.shown });
    this.#you.form({ ...common, x: right, other: this.#agent.shown });
    const fill = (/** @type {Body} */ { path }, /** @type {CanvasPattern} */ surface, /** @type {number} */ x) => {
      const [reach, scale] = [1.7 * radius, (3.4 * radius) / TEXTURE];
      surface.setTransform(new DOMMatrix([scale, 0, 0, scale, x - reach, height / 2 - reach]));
      paint.fillStyle = surface;
      paint.fill(path);
    };
    paint.clearRect(0, 0, width, height);
    paint.globalAlpha = waiting ? (still ? 0.5 : 0.5 + 0.2 * Math.sin(time / 500)) : 1;
    fill(this.#agent, agent, left);
    if (muted) {
      paint.strokeStyle = line;
      paint.lineWidth = 0.03 * radius;
      paint.setLineDash([0.1 * radius, 0.08 * radius]);
      paint.stroke(this.#you.path);
      paint.setLineDash([]);
      return;
    }
    // The overlap lies on the agent's body, and the caller's below: edges stay smooth, which those of a clip are not.
    const opaque = paint.globalAlpha;
    paint.globalCompositeOperation = "source-atop";
    paint.globalAlpha = opaque * (0.3 + 0.7 * Math.min(1, 2 * Math.min(this.#agent.shown, this.#you.shown)));
    paint.fillStyle = both;
    paint.fill(this.#you.path);
    paint.globalCompositeOperation = "destination-over";
    paint.globalAlpha = opaque;
    fill(this.#you, you, right);
    paint.globalCompositeOperation = "source-over";
  }
}
