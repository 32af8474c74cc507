/** What the agent says, word by word as it comes, with the time of each passage. */

import { button, download, element, fileStamp, make } from "./dom.js";

/** A pause this long begins a new passage. */
const PAUSE_MS = 2500;
/** Words wait at most this long before a screen reader is given them, so that it reads phrases and not syllables. */
const PHRASE_MS = 2000;
const SENTENCE_END = /[.!?…]["”')]?\s*$/;

/** @param {number} seconds */
export function clockTime(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** The transcript of one call; the panel shows the newest one. */
export class Transcript {
  /** @type {{ seconds: number, text: string, element: HTMLElement }[]} */
  #passages = [];
  #panel = element("transcript", HTMLElement);
  #announce = element("announce", HTMLElement);
  #buttons = [button("copy"), button("download-transcript")];
  #lastAt = 0;
  #phrase = "";
  #timer = 0;
  #name;

  /** @param {string} name the persona's */
  constructor(name) {
    this.#name = name;
    this.#announce.textContent = "";
    this.#panel.replaceChildren(make("p", "empty", "The agent's words appear here as it speaks."));
    for (const one of this.#buttons) one.disabled = true;
    this.#buttons[0].onclick = () => this.#copy();
    this.#buttons[1].onclick = () =>
      download(new Blob([this.text], { type: "text/plain" }), `${this.#name} ${fileStamp()}.txt`);
  }

  /** The whole as plain text, a line a passage. */
  get text() {
    return this.#passages.map(({ seconds, text }) => `[${clockTime(seconds)}] ${text.trim()}\n`).join("");
  }

  /**
   * Take the next piece of words.
   * @param {string} piece
   * @param {number} seconds time of the call
   */
  add(piece, seconds) {
    const now = performance.now();
    const current = this.#passages.at(-1);
    const paused = now - this.#lastAt > PAUSE_MS;
    this.#lastAt = now;
    if (!current || (paused && (SENTENCE_END.test(current.text) || piece.startsWith(" ")))) this.#begin(seconds);
    const passage = this.#passages[this.#passages.length - 1];
    passage.text += piece;
    const follow = this.#panel.scrollHeight - this.#panel.scrollTop - this.#panel.clientHeight < 60;
    passage.element.append(make("span", "word", passage.text === piece ? piece.trimStart() : piece));
    if (follow) this.#panel.scrollTop = this.#panel.scrollHeight;
    this.#say(piece);
  }

  /** @param {number} seconds */
  #begin(seconds) {
    if (!this.#passages.length) {
      this.#panel.replaceChildren();
      for (const one of this.#buttons) one.disabled = false;
    }
    this.#passages.at(-1)?.element.normalize();
    const row = make("div", "passage");
    const element = make("p");
    row.append(make("time", "", clockTime(seconds)), element);
    this.#panel.append(row);
    this.#passages.push({ seconds, text: "", element });
  }

  /** A line between the words, for what happens to the call. @param {string} text */
  mark(text) {
    if (!this.#passages.length) return;
    this.#panel.append(make("p", "mark", text));
    this.#panel.scrollTop = this.#panel.scrollHeight;
    this.#lastAt = -Infinity;
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

  async #copy() {
    const label = this.#buttons[0];
    try {
      await navigator.clipboard.writeText(this.text);
      label.ariaLabel = "Copied";
    } catch {
      label.ariaLabel = "This browser does not let the page copy. Download it instead.";
    }
    label.classList.add("done");
    setTimeout(() => {
      label.ariaLabel = "Copy transcript";
      label.classList.remove("done");
    }, 2000);
  }
}
