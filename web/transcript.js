/** What both sides say, in the order of time: the agent's words as they come, and when the caller spoke. */

import { button, clockTime, element, make } from "./dom.js";

/** A pause this long between words begins a new passage. */
const PAUSE_MS = 2500;
/** Words wait at most this long before a screen reader is given them, so that it reads phrases and not syllables. */
const PHRASE_MS = 2000;
/** Shorter sounds of the caller's are no turn. */
const SHORTEST_S = 0.4;
/** The caller's spans this near to each other, with no words of the agent's between, are one passage. */
const SAME_TURN_S = 2;
const SENTENCE_END = /[.!?…]["”')]?\s*$/;

/**
 * @typedef {object} Passage
 * @property {"agent" | "you"} side
 * @property {number} start seconds of the call
 * @property {number} end
 * @property {string} text
 * @property {boolean} heard whether the text is what was said; if not, it only tells that the caller spoke
 * @property {boolean} cut whether the other side cut it off
 * @property {HTMLElement} row
 * @property {HTMLElement} words
 */

/** @param {Passage} passage */
const written = ({ text, cut }) => text.trim() + (cut ? " –" : "");

/** The transcript of one call; the panel shows the newest one. */
export class Transcript {
  /** In order of their starts. @type {Passage[]} */
  passages = [];
  /** Called with the seconds of a passage that the caller wants to hear. @type {(seconds: number) => void} */
  onseek = () => {};
  #panel = element("transcript", HTMLElement);
  #announce = element("announce", HTMLElement);
  /** @type {Passage | null} */
  #agent = null;
  /** @type {Passage | null} */
  #you = null;
  /** Whether the agent has fallen silent since its last word. */
  #silent = false;
  #lastAt = 0;
  #phrase = "";
  #timer = 0;
  #name;

  /** @param {string} name the persona's */
  constructor(name) {
    this.#name = name;
    this.#announce.textContent = "";
    this.#panel.replaceChildren(make("p", "empty", "What you both say appears here, in the order of time."));
    this.#panel.classList.remove("playable");
    for (const id of EXPORTS) button(id).disabled = true;
  }

  /** The whole as plain text, a line a passage. */
  get text() {
    const line = (/** @type {Passage} */ passage) =>
      `[${clockTime(passage.start)}] ${passage.side === "you" ? "You" : this.#name}: ${written(passage)}\n`;
    return this.passages.map(line).join("");
  }

  /** The whole as WebVTT, a cue a passage. */
  get vtt() {
    const cue = (/** @type {Passage} */ passage) => {
      const voice = passage.side === "you" ? "You" : this.#name.replace(/[<>&\n]/g, " ");
      const text = written(passage).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
      return `${stamp(passage.start)} --> ${stamp(Math.max(passage.end, passage.start + 0.5))}\n<v ${voice}>${text}\n`;
    };
    return ["WEBVTT\n", ...this.passages.map(cue)].join("\n");
  }

  /**
   * The next piece of the agent's words.
   * @param {string} piece
   * @param {number} seconds time of the call
   */
  add(piece, seconds) {
    const now = performance.now();
    const before = this.#agent;
    const paused = now - this.#lastAt > PAUSE_MS && (!before || SENTENCE_END.test(before.text) || piece.startsWith(" "));
    // Who was interrupted and goes on later does so in a passage of its own, behind what the caller said.
    const taken = before && this.#silent && (this.#you?.end ?? 0) > before.start && piece.startsWith(" ");
    this.#lastAt = now;
    if (!before || paused || taken) this.#agent = this.#begin("agent", seconds);
    const passage = /** @type {Passage} */ (this.#agent);
    if (passage.cut) this.#mend(passage);
    this.#silent = false;
    passage.text += piece;
    passage.end = seconds;
    this.#following(() => passage.words.append(passage.text === piece ? piece.trimStart() : piece));
    this.#say(piece);
  }

  /**
   * The agent's voice has stopped.
   * @param {number} seconds when
   * @param {boolean} interrupted whether the caller spoke at that time
   */
  stopped(seconds, interrupted) {
    this.#silent = true;
    const passage = this.#agent;
    if (!passage) return;
    passage.end = Math.max(passage.end, seconds);
    if (!interrupted || passage.cut || SENTENCE_END.test(passage.text)) return;
    passage.cut = true;
    passage.words.append(make("span", "dash", " –"));
  }

  /** It was only a pause. @param {Passage} passage */
  #mend(passage) {
    passage.cut = false;
    passage.words.querySelector(".dash")?.remove();
  }

  /** The caller speaks, or has spoken. @param {import("./turns.js").Span} span */
  spoke({ start, end }) {
    if (end - start < SHORTEST_S) return;
    const last = this.#you;
    const going = last && (last.start === start || (start - last.end < SAME_TURN_S && (this.#agent?.start ?? 0) < last.start));
    const passage = going ? last : (this.#you = this.#begin("you", start));
    passage.end = end;
    if (passage.heard) return;
    const text = `You spoke, ${Math.max(1, Math.round(end - passage.start))} s`;
    if (text === passage.text) return;
    passage.text = text;
    this.#following(() => passage.words.replaceChildren(text));
  }

  /** What the caller said, in place of that they spoke. @param {import("./call.js").CallerText} said */
  callerText({ text, start_ms, end_ms }) {
    const [start, end] = [start_ms / 1000, end_ms / 1000];
    const known = this.passages.find((one) => one.side === "you" && one.start < end && one.end > start);
    const passage = known ?? (this.#you = this.#begin("you", start));
    passage.text = known?.heard ? `${known.text} ${text.trim()}` : text.trim();
    passage.heard = true;
    passage.row.classList.add("heard");
    passage.end = Math.max(passage.end, end);
    this.#following(() => passage.words.replaceChildren(passage.text));
  }

  /**
   * A new passage in its place in time.
   * @param {Passage["side"]} side
   * @param {number} start
   */
  #begin(side, start) {
    if (!this.passages.length) {
      this.#panel.querySelector(".empty")?.remove();
      for (const id of EXPORTS) button(id).disabled = false;
    }
    const row = make("div", `passage ${side}`);
    const at = make("button", "at", clockTime(start));
    at.type = "button";
    at.title = "Play from here";
    at.onclick = () => this.onseek(start);
    at.disabled = true;
    const words = make("p");
    words.dir = "auto";
    row.append(make("span", "out", side === "you" ? "You" : this.#name), at, words);
    const passage = { side, start, end: start, text: "", heard: side === "agent", cut: false, row, words };
    const later = this.passages.findIndex((one) => one.start > start);
    if (later < 0) this.#panel.append(row);
    else this.#panel.insertBefore(row, this.passages[later].row);
    this.passages.splice(later < 0 ? this.passages.length : later, 0, passage);
    return passage;
  }

  /** Change the panel; who reads its end goes on reading its end. @param {() => void} change */
  #following(change) {
    const panel = this.#panel;
    const follow = panel.scrollHeight - panel.scrollTop - panel.clientHeight < 60;
    change();
    if (follow) panel.scrollTop = panel.scrollHeight;
  }

  /** A line between the words, for what happens to the call. @param {string} text */
  mark(text) {
    if (!this.passages.length) return;
    this.#panel.append(make("p", "mark", text));
    this.#panel.scrollTop = this.#panel.scrollHeight;
    this.#agent = this.#you = null;
  }

  /** There is a recording: passages can be played. */
  playable() {
    this.#panel.classList.add("playable");
    for (const at of this.#panel.querySelectorAll("button")) at.disabled = false;
  }

  /** @param {string} piece */
  #say(piece) {
    this.#phrase += piece;
    clearTimeout(this.#timer);
    const give = () => {
      this.#announce.append(make("p", "", this.#phrase.trim()));
      while (this.#announce.childElementCount > 3) this.#announce.firstElementChild?.remove();
      this.#phrase = "";
    };
    if (SENTENCE_END.test(this.#phrase)) give();
    else this.#timer = setTimeout(give, PHRASE_MS);
  }
}

/** The buttons that give the transcript away. */
export const EXPORTS = ["copy", "download-text", "download-vtt"];

/** WebVTT's time of a cue. @param {number} seconds */
function stamp(seconds) {
  const ms = Math.round(seconds * 1000);
  const part = (/** @type {number} */ value, digits = 2) => String(value).padStart(digits, "0");
  return `${part(Math.floor(ms / 3600000))}:${part(Math.floor(ms / 60000) % 60)}:${part(Math.floor(ms / 1000) % 60)}.${part(ms % 1000, 3)}`;
}
