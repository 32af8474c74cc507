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
 * Draw the picture of this name.
 * @param {string} name
 * @returns {SVGElement}
 */
export function avatar(name) {
  const chance = random(hash(name) + 1);
  const main = hue(name);
  const turn = chance() < 0.5 ? 1 : -1;
  const picture = /** @type {SVGElement} */ (shape("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }));
  picture.append(
    shape("circle", { cx: 50, cy: 50, r: 46, fill: `hsl(${main} 60% 60%)`, opacity: 0.2 }),
    shape("circle", { cx: 50, cy: 50, r: 37, fill: `hsl(${main} 58% 56%)` }),
  );
  // Three lights on the ball, each of a neighbouring colour.
  [30, 65, 110].forEach((away, index) => {
    const id = ids.next().value ?? "";
    const angle = 2 * Math.PI * (chance() + index / 3);
    const center = { cx: `${50 + 34 * Math.cos(angle)}%`, cy: `${50 + 34 * Math.sin(angle)}%` };
    const color = `hsl(${main + turn * (away + 20 * chance())} ${62 + 12 * chance()}% ${60 + 14 * (index % 2) + 6 * chance()}%)`;
    const gradient = shape("radialGradient", { id, ...center, r: "65%" });
    gradient.append(
      shape("stop", { offset: 0, "stop-color": color }),
      shape("stop", { offset: 1, "stop-color": color, "stop-opacity": 0 }),
    );
    picture.append(gradient, shape("circle", { cx: 50, cy: 50, r: 37, fill: `url(#${id})` }));
  });
  return picture;
}
