/** The button that plays a sentence in the chosen voice. */

import { ApiError } from "./api.js";
import { button, note } from "./dom.js";

const ICONS = { play: "#i-play", wait: "#i-wait", stop: "#i-stop" };
const WORDS = { play: "Hear this voice", wait: "The voice is being prepared", stop: "Stop" };

/** Plays one voice at a time; what plays them is loaded at the first press. */
export class HearButton {
  #button = button("hear");
  #settings;
  #voice;
  /** @type {import("./sample.js").VoiceSample | null} */
  #sample = null;
  /** @type {keyof typeof ICONS} */
  #state = "play";
  #presses = 0;

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {() => string} voice which one
   */
  constructor(settings, voice) {
    this.#settings = settings;
    this.#voice = voice;
    this.#button.onclick = () => (this.#state === "play" ? this.#play() : this.stop());
  }

  /** Whether voices can be heard here. @param {boolean} yes */
  set offered(yes) {
    this.#button.hidden = !yes;
  }

  /** Another voice is chosen, or (`yes` is false) none in particular. @param {boolean} yes */
  ready(yes) {
    this.stop();
    this.#button.disabled = !yes;
  }

  async #play() {
    const press = ++this.#presses;
    this.#show("wait");
    try {
      const { VoiceSample } = await import("./sample.js");
      this.#sample ??= new VoiceSample(this.#settings);
      await this.#sample.play(this.#voice(), () => press === this.#presses && this.#show("stop"));
    } catch (error) {
      if (press !== this.#presses) return;
      note(error instanceof ApiError ? error.message : "This browser cannot play the sample.");
    }
    if (press === this.#presses) this.#show("play");
  }

  stop() {
    this.#presses += 1;
    this.#sample?.stop();
    this.#show("play");
  }

  /** @param {keyof typeof ICONS} state */
  #show(state) {
    this.#state = state;
    this.#button.querySelector("use")?.setAttribute("href", ICONS[state]);
    this.#button.ariaLabel = this.#button.title = WORDS[state];
    this.#button.ariaBusy = String(state === "wait");
  }
}
