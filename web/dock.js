/** A call's buttons: mute or hold to talk, record, end. */

import { announce, button, clockTime, element, note } from "./dom.js";

/** The second press of a key that ends the call must come this soon. */
const AGAIN_MS = 4000;

/**
 * @typedef {object} Actions
 * @property {(muted: boolean) => void} mute
 * @property {(on: boolean) => void} record
 * @property {() => void} end
 * @property {() => boolean} pushToTalk
 * @property {() => number} seconds of the call
 */

/** The buttons under a call, and what they have set. */
export class Dock {
  muted = false;
  recording = false;
  /** What was recorded, in seconds of the call; the last span is open while it records. @type {import("./turns.js").Span[]} */
  recorded = [];
  #actions;
  #pill = element("recording", HTMLElement);
  #pressed = -Infinity;
  /** @type {import("./dom.js").Note | null} */
  #question = null;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    button("mute").onclick = () => this.toggleMute();
    button("record").onclick = () => this.toggleRecord();
    button("end").onclick = () => actions.end();
    const talk = button("talk");
    talk.onpointerdown = (event) => {
      talk.setPointerCapture(event.pointerId);
      this.talk(true);
    };
    talk.onpointerup = talk.onpointercancel = () => this.talk(false);
    talk.oncontextmenu = (event) => event.preventDefault();
    talk.onkeydown = ({ key, repeat }) => key === "Enter" && !repeat && this.talk(true);
    talk.onkeyup = ({ key }) => key === "Enter" && this.talk(false);
    talk.onblur = () => this.talk(false);
  }

  /** A new call. */
  start() {
    this.recording = false;
    this.recorded = [];
    this.show(true);
    this.setRecordable(false);
    this.arrange();
  }

  /** @param {boolean} shown */
  show(shown) {
    element("dock", HTMLElement).hidden = !shown;
    this.tick();
    this.#question?.remove();
  }

  /** Hold to talk, or talk and mute. */
  arrange() {
    const pushToTalk = this.#actions.pushToTalk();
    button("talk").hidden = !pushToTalk;
    button("mute").hidden = pushToTalk;
    this.#setMuted(pushToTalk);
  }

  toggleMute() {
    if (this.#actions.pushToTalk()) return;
    this.#setMuted(!this.muted);
    announce(this.muted ? "You are muted." : "Your microphone is on.");
  }

  /** Push to talk. @param {boolean} down */
  talk(down) {
    if (this.#actions.pushToTalk() && this.muted === down) this.#setMuted(!down);
  }

  /** @param {boolean} muted */
  #setMuted(muted) {
    this.muted = muted;
    const mute = button("mute");
    mute.ariaPressed = String(muted);
    mute.querySelector("use")?.setAttribute("href", muted ? "#i-mic-off" : "#i-mic");
    button("talk").classList.toggle("on", !muted);
    this.#actions.mute(muted);
  }

  /** @param {boolean} yes */
  setRecordable(yes) {
    button("record").disabled = !yes;
    button("record").ariaPressed = String(this.recording);
  }

  toggleRecord() {
    if (button("record").disabled) return;
    this.recording = !this.recording;
    const seconds = this.#actions.seconds();
    if (this.recording) this.recorded.push({ start: seconds, end: seconds });
    else this.recorded[this.recorded.length - 1].end = seconds;
    button("record").ariaPressed = String(this.recording);
    this.#actions.record(this.recording);
    this.tick();
    announce(this.recording ? "Recording both sides. The file stays with you." : "The recording is stopped.");
  }

  /** The call is over: what is recorded ends here. @param {number} seconds of the call */
  finish(seconds) {
    if (this.recording) this.recorded[this.recorded.length - 1].end = seconds;
    this.recording = false;
    this.show(false);
  }

  /** Keep the recording's time; to be called a few times a second. */
  tick() {
    this.#pill.hidden = !this.recording;
    if (!this.recording) return;
    const earlier = this.recorded.slice(0, -1).reduce((sum, { start, end }) => sum + end - start, 0);
    const text = `Recording ${clockTime(earlier + this.#actions.seconds() - this.recorded[this.recorded.length - 1].start)}`;
    if (this.#pill.textContent !== text) this.#pill.textContent = text;
  }

  /** End by a key, which is easily pressed by accident: at the second press. */
  endByKey() {
    if (performance.now() - this.#pressed < AGAIN_MS) return this.#actions.end();
    this.#pressed = performance.now();
    this.#question = note("Press E again to end the call.", AGAIN_MS / 1000);
  }
}
