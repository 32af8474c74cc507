/**
 * The living shape of a call: two bodies that meet, the agent left and the caller right. Each swells and ripples with its
 * voice, and where both sound at once their overlap lights up.
 */

import { picture } from "./avatar.js";
import { element } from "./dom.js";
import { LEVELS_PER_SECOND } from "./echo.js";

/** Levels of the past that run around a body, from where it meets the other to its back. */
const PAST = 18;
/** Points of an outline. */
const POINTS = 48;
/** Levels are shown from this many decibels below the loudest. */
const RANGE_DB = 44;
/** More pixels than this to one of the page's cost time and are not seen. */
const FINEST = 1.5;
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

/** A body's surface, drawn once. @param {string} ball @param {import("./avatar.js").Picture["lights"]} lights */
function texture(ball, lights) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = TEXTURE;
  const paint = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
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

/** Draws the shape of one call after another. */
export class Shape {
  #canvas = element("voices", HTMLCanvasElement);
  #paint = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d"));
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #agent = new Body(1);
  #you = new Body(-1);
  /** @type {{ agent: CanvasPattern, you: CanvasPattern, line: string, both: string } | null} */
  #colors = null;
  #name = "";
  #levelAt = 0;
  #frame = 0;
  #width = 0;
  #height = 0;
  /** The caller's body is hollow. */
  muted = false;
  /** Nobody can speak yet, or now. */
  waiting = true;

  constructor() {
    new ResizeObserver(([{ contentRect }]) => this.#resize(contentRect)).observe(this.#canvas);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => (this.#colors = null));
    }
  }

  /** Live, for this persona. @param {string} name */
  start(name) {
    this.stop();
    this.#name = name;
    this.#colors = null;
    [this.#agent, this.#you] = [new Body(1), new Body(-1)];
    this.#frame = requestAnimationFrame((time) => this.#draw(time));
  }

  stop() {
    cancelAnimationFrame(this.#frame);
  }

  /**
   * Take the levels of both sides, 25 times a second.
   * @param {number} you
   * @param {number} agent
   */
  add(you, agent) {
    this.#levelAt = performance.now();
    this.#you.add(this.muted ? 0 : you);
    this.#agent.add(agent);
  }

  /** @param {DOMRectReadOnly} box */
  #resize({ width, height }) {
    const fine = Math.min(devicePixelRatio, FINEST);
    [this.#width, this.#height] = [Math.round(width * fine), Math.round(height * fine)];
    Object.assign(this.#canvas, { width: this.#width, height: this.#height });
  }

  /** The colours of the page as it is: they change with its scheme. */
  #dress() {
    const style = getComputedStyle(this.#canvas);
    const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const plain = matchMedia("(forced-colors: active)").matches;
    const { ball, lights } = picture(this.#name);
    const agent = plain ? texture(color("--agent"), []) : texture(ball, lights);
    const glow = { x: -0.2, y: -0.3, color: `hsl(${color("--you-hue")} 60% 68%` };
    const you = texture(color("--you"), plain ? [] : [glow]);
    return { agent, you, line: color("--edge"), both: color("--both") };
  }

  /** @param {number} time */
  #draw(time) {
    this.#frame = requestAnimationFrame((next) => this.#draw(next));
    const [paint, width, height] = [this.#paint, this.#width, this.#height];
    if (!width || !height) return;
    const { agent, you, line, both } = (this.#colors ??= this.#dress());
    const radius = Math.min(height * 0.34, width * 0.21);
    const still = this.#still.matches;
    const since = Math.min(1, ((time - this.#levelAt) / 1000) * LEVELS_PER_SECOND);
    const common = { y: height / 2, radius, time: time / 1000, since, still };
    const [left, right] = [width / 2 - 0.88 * radius, width / 2 + 0.88 * radius];
    this.#agent.form({ ...common, x: left, other: this.#you.shown });
    this.#you.form({ ...common, x: right, other: this.#agent.shown });
    paint.clearRect(0, 0, width, height);
    paint.globalAlpha = this.waiting ? (still ? 0.5 : 0.5 + 0.2 * Math.sin(time / 500)) : 1;
    this.#body(this.#agent.path, agent, left, radius);
    if (this.muted) {
      paint.strokeStyle = line;
      paint.lineWidth = 0.03 * radius;
      paint.setLineDash([0.1 * radius, 0.08 * radius]);
      paint.stroke(this.#you.path);
      paint.setLineDash([]);
      return;
    }
    this.#body(this.#you.path, you, right, radius);
    paint.save();
    paint.clip(this.#agent.path);
    paint.globalAlpha *= 0.3 + 0.7 * Math.min(1, 2 * Math.min(this.#agent.shown, this.#you.shown));
    paint.fillStyle = both;
    paint.fill(this.#you.path);
    paint.restore();
  }

  /**
   * @param {Path2D} path
   * @param {CanvasPattern} surface
   * @param {number} x
   * @param {number} radius
   */
  #body(path, surface, x, radius) {
    const reach = 1.7 * radius;
    surface.setTransform(new DOMMatrix([(2 * reach) / TEXTURE, 0, 0, (2 * reach) / TEXTURE, x - reach, this.#height / 2 - reach]));
    this.#paint.fillStyle = surface;
    this.#paint.fill(path);
  }
}
