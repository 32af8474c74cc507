/** A persona's picture, drawn from its name: a ball in three lights, always the same for the same name. */

const SVG = "http://www.w3.org/2000/svg";

/** A well-mixed number from a text (FNV-1a). @param {string} text */
function hash(text) {
  let value = 0x811c9dc5;
  for (const letter of text) value = Math.imul(value ^ (letter.codePointAt(0) ?? 0), 0x01000193);
  return value >>> 0;
}

/** Numbers from 0 to 1 that follow from a seed (mulberry32). @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 */
function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

/** Gradients are found by id, and the same name may be on the page twice. */
const ids = (function* () {
  for (let id = 1; ; id++) yield `glow-${id}`;
})();

/**
 * The leading colour of this name's picture, 0 to 359 degrees.
 * @param {string} name
 */
export const hue = (name) => Math.floor(random(hash(name))() * 360);

/**
 * @typedef {object} Picture a ball in three lights; places are parts of its width from its middle
 * @property {string} glow
 * @property {string} ball
 * @property {{ x: number, y: number, color: string }[]} lights each colour without its closing bracket, to take an opacity
 */

/**
 * What this name's picture looks like.
 * @param {string} name
 * @returns {Picture}
 */
export function picture(name) {
  const chance = random(hash(name) + 1);
  const main = hue(name);
  const turn = chance() < 0.5 ? 1 : -1;
  // Three lights on the ball, each of a neighbouring colour.
  const lights = [30, 65, 110].map((away, index) => {
    const angle = 2 * Math.PI * (chance() + index / 3);
    const tone = main + turn * (away + 20 * chance());
    const color = `hsl(${tone} ${62 + 12 * chance()}% ${60 + 14 * (index % 2) + 6 * chance()}%`;
    return { x: 0.34 * Math.cos(angle), y: 0.34 * Math.sin(angle), color };
  });
  return { glow: `hsl(${main} 60% 60%)`, ball: `hsl(${main} 58% 56%)`, lights };
}

/**
 * Draw the picture of this name, with an emoji on it, or take an image in its place.
 * @param {string} name
 * @param {{ emoji?: string, image?: string | null }} [look]
 * @returns {Element}
 */
export function avatar(name, { emoji = "", image = null } = {}) {
  if (image) {
    const photo = document.createElement("img");
    photo.src = image;
    photo.alt = "";
    return photo;
  }
  const { glow, ball, lights } = picture(name);
  const drawn = /** @type {SVGElement} */ (shape("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }));
  drawn.append(
    shape("circle", { cx: 50, cy: 50, r: 46, fill: glow, opacity: 0.2 }),
    shape("circle", { cx: 50, cy: 50, r: 37, fill: ball }),
  );
  for (const { x, y, color } of lights) {
    const id = ids.next().value ?? "";
    const gradient = shape("radialGradient", { id, cx: `${50 + 100 * x}%`, cy: `${50 + 100 * y}%`, r: "65%" });
    gradient.append(
      shape("stop", { offset: 0, "stop-color": `${color})` }),
      shape("stop", { offset: 1, "stop-color": `${color} / 0)` }),
    );
    drawn.append(gradient, shape("circle", { cx: 50, cy: 50, r: 37, fill: `url(#${id})` }));
  }
  if (emoji) {
    const symbol = shape("text", { x: 50, y: 51, "font-size": 36, "text-anchor": "middle", "dominant-baseline": "central" });
    symbol.textContent = emoji;
    drawn.append(symbol);
  }
  return drawn;
}
