/** The living shape of a call, as the page has it: its canvas, size and colours. It is painted in a worker where that can be. */

import { picture } from "./avatar.js";
import { Bodies } from "./bodies.js";
import { element } from "./dom.js";

/** More pixels than this to one of the page's cost time and are not seen. */
const FINEST = 1.5;

/** @returns {(command: import("./bodies.js").Command, transfer?: Transferable[]) => void} */
function painter() {
  const canvas = element("voices", HTMLCanvasElement);
  try {
    const worker = new Worker(new URL("bodies-worker.js", import.meta.url), { type: "module" });
    const offscreen = canvas.transferControlToOffscreen();
    worker.postMessage({ type: "canvas", canvas: offscreen }, [offscreen]);
    return (command) => worker.postMessage(command);
  } catch {
    const bodies = new Bodies();
    bodies.command({ type: "canvas", canvas });
    return (command) => bodies.command(command);
  }
}

/** Shows one call after another. */
export class Shape {
  #canvas = element("voices", HTMLCanvasElement);
  #command = painter();
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #plain = matchMedia("(forced-colors: active)");
  #name = "";
  #muted = false;
  #waiting = true;

  constructor() {
    new ResizeObserver(([{ contentRect }]) => {
      const fine = Math.min(devicePixelRatio, FINEST);
      this.#command({ type: "size", width: Math.round(contentRect.width * fine), height: Math.round(contentRect.height * fine) });
    }).observe(this.#canvas);
    for (const query of [matchMedia("(prefers-color-scheme: dark)"), this.#plain]) {
      query.addEventListener("change", () => this.#command({ type: "colors", colors: this.#colors }));
    }
    this.#still.addEventListener("change", () => this.#tell());
  }

  /** Whether the caller's body is hollow. @param {boolean} muted */
  set muted(muted) {
    this.#muted = muted;
    this.#tell();
  }

  /** Whether nobody can speak yet, or now. @param {boolean} waiting */
  set waiting(waiting) {
    this.#waiting = waiting;
    this.#tell();
  }

  #tell() {
    this.#command({ type: "state", muted: this.#muted, waiting: this.#waiting, still: this.#still.matches });
  }

  /** Live, for this persona. @param {string} name */
  start(name) {
    this.#name = name;
    this.#command({ type: "start", colors: this.#colors });
    this.#tell();
  }

  stop() {
    this.#command({ type: "stop" });
  }

  /**
   * Take the levels of both sides, 25 times a second.
   * @param {number} you
   * @param {number} agent
   */
  add(you, agent) {
    this.#command({ type: "levels", you, agent });
  }

  /** The colours of the page as it is: they change with its scheme. */
  get #colors() {
    // A worker knows no system colours by name, so each is asked for as the page shows it.
    const probe = document.createElement("i");
    this.#canvas.after(probe);
    const color = (/** @type {string} */ name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    const hue = getComputedStyle(this.#canvas).getPropertyValue("--you-hue");
    const plain = this.#plain.matches;
    const { ball, lights } = picture(this.#name);
    const colors = {
      agent: plain ? { ball: color("--agent"), lights: [] } : { ball, lights },
      you: { ball: color("--you"), lights: plain ? [] : [{ x: -0.2, y: -0.3, color: `hsl(${hue} 60% 68%` }] },
      line: color("--edge"),
      both: color("--both"),
    };
    probe.remove();
    return colors;
  }
}
