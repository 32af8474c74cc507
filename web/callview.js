/** The view of a call: what is happening, the controls, and what is left when it is over. */

import { avatar, hue } from "./avatar.js";
import { Call } from "./call.js";
import { button, element, fileStamp, note, showView } from "./dom.js";
import { Readout } from "./readout.js";
import { Transcript, clockTime } from "./transcript.js";

/**
 * @typedef {import("./api.js").Choice} Choice
 * @typedef {import("./call.js").State} State
 * @typedef {import("./endings.js").Ending} Ending
 */

/** What each state says, and what there is to know about it. @type {Record<State, [string, string]>} */
const WORDS = {
  idle: ["", ""],
  asking: ["Asking for your microphone", "Your browser may ask you to allow it."],
  waking: ["Waking the model", ""],
  connecting: ["Connecting", ""],
  queued: ["Waiting for a free line", ""],
  preparing: ["Preparing the voice", ""],
  live: ["Live", ""],
  reconnecting: ["Reconnecting", "The connection was lost. The agent will not remember what was said before."],
  ended: ["", ""],
};
const ECHO_HINT = "It sounds as if the agent hears itself. Headphones, or a lower volume, help.";
const LOST_MICROPHONE = "Your microphone is gone. Plug it in again or pick another in the sound settings.";
/** Meters show this many decibels. */
const RANGE_DB = 54;

/** Shows one call after another. */
export class CallView {
  /** @type {Call | null} */
  #call = null;
  #settings;
  #left;
  /** @type {{ choice: Choice, name: string } | null} */
  #who = null;
  /** @type {Transcript | null} */
  #transcript = null;
  #readout = new Readout();
  #muted = false;
  #recording = false;
  #startedAt = 0;
  #wakingAt = 0;
  #seconds = 0;
  #clock = 0;
  /** @type {WakeLockSentinel | null} */
  #wakeLock = null;
  /** Where calls are served, when not here. @type {import("./api.js").Remote | null} */
  remote = null;
  #state = element("call-state", HTMLElement);
  #detail = element("call-detail", HTMLElement);
  #meters = [element("meter-you", HTMLElement), element("meter-agent", HTMLElement)];
  #rings = [element("ring-far", HTMLElement), element("ring-near", HTMLElement)];

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {() => void} left the caller wants to choose again, or to log in
   */
  constructor(settings, left) {
    this.#settings = settings;
    this.#left = left;
    button("mute").onclick = () => this.toggleMute();
    button("record").onclick = () => this.toggleRecord();
    button("end").onclick = () => this.hangUp();
    button("back").onclick = left;
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
    document.addEventListener("visibilitychange", () => {
      if (document.hidden || !this.running) return;
      this.#call?.sound.wake();
      this.#stayAwake();
    });
    addEventListener("pagehide", () => this.hangUp());
  }

  /** Whether a call is under way, in any phase. */
  get running() {
    return this.#call !== null && this.#call.state !== "ended";
  }

  /**
   * Call.
   * @param {Choice} choice
   * @param {string} name the persona's
   */
  start(choice, name) {
    this.#who = { choice, name };
    this.#transcript = new Transcript(name);
    this.#readout = new Readout();
    this.#muted = this.#recording = false;
    this.#startedAt = this.#seconds = 0;
    element("call-avatar", HTMLElement).replaceChildren(avatar(name));
    for (const ring of this.#rings) ring.parentElement?.style.setProperty("--hue", String(hue(name)));
    element("call-name", HTMLElement).textContent = name;
    element("clock-limit", HTMLElement).textContent = "";
    element("download-recording", HTMLAnchorElement).hidden = true;
    element("dock", HTMLElement).hidden = false;
    element("after", HTMLElement).hidden = true;
    const transcript = this.#transcript;
    /** @type {import("./call.js").CallListener} */
    const listener = {
      state: (state, place) => this.#show(state, place),
      ended: (ending) => this.#ended(ending),
      ready: (ready) => this.#ready(ready),
      text: (text) => transcript.add(text, this.#seconds),
      warning: (limit, seconds) => this.#warn(limit, seconds),
      echo: () => note(ECHO_HINT, 15),
      microphoneLost: () => note(LOST_MICROPHONE, 30),
      levels: (you, agent) => this.#levels(you, agent),
      stats: (stats) => this.#readout.show(stats),
      recording: (file) => this.#recorded(file),
    };
    this.#call = new Call(choice, element("agent-audio", HTMLAudioElement), listener, this.remote);
    this.apply();
    this.#clock = setInterval(() => this.#tick(), 250);
    this.#tick();
    showView("call");
    this.#call.start(this.#settings);
    this.#stayAwake();
  }

  /** Take over what the sound settings say. @param {keyof import("./settings.js").Settings} [changed] */
  apply(changed) {
    const { microphone, speaker, volume, pushToTalk } = this.#settings;
    button("talk").hidden = !pushToTalk;
    button("mute").hidden = pushToTalk;
    if (!this.#call || !this.running) return;
    if (!changed || changed === "pushToTalk") this.#setMuted(pushToTalk);
    if (changed === "volume") this.#call.sound.setVolume(volume);
    if (changed === "speaker") this.#call.sound.setSpeaker(speaker);
    if (changed === "microphone") this.#call.sound.setMicrophone(microphone).catch(() => note(LOST_MICROPHONE, 30));
  }

  toggleMute() {
    if (this.running && !this.#settings.pushToTalk) this.#setMuted(!this.#muted);
  }

  /** Push to talk. @param {boolean} down */
  talk(down) {
    if (this.running && this.#settings.pushToTalk) this.#setMuted(!down);
  }

  /** @param {boolean} muted */
  #setMuted(muted) {
    this.#muted = muted;
    this.#call?.sound.setMuted(muted);
    const mute = button("mute");
    mute.ariaPressed = String(muted);
    mute.querySelector("use")?.setAttribute("href", muted ? "#i-mic-off" : "#i-mic");
    button("talk").classList.toggle("on", !muted);
    this.#line();
  }

  toggleRecord() {
    if (!this.running) return;
    this.#recording = !this.#recording;
    this.#call?.record(this.#recording);
    button("record").ariaPressed = String(this.#recording);
    if (this.#recording) note("Recording both sides. The file stays with you.", 4);
  }

  hangUp() {
    this.#call?.hangUp();
  }

  /**
   * @param {State} state
   * @param {number} place
   */
  #show(state, place) {
    document.body.dataset.call = state;
    const [words, detail] = WORDS[state];
    this.#state.textContent = state === "queued" ? `${words}: you are number ${place}` : words;
    this.#detail.textContent = state === "queued" ? "You will be connected by yourself. Keep this page open." : detail;
    if (state === "waking") this.#wakingAt = performance.now();
    if (state === "live") {
      if (!this.#startedAt) this.#startedAt = performance.now();
      else this.#transcript?.mark("Connected again. The conversation begins anew.");
      this.#line();
    }
    button("record").disabled = !this.#startedAt;
    button("record").ariaPressed = String(this.#recording);
    document.title = state === "live" ? `Live: ${this.#who?.name}` : "PersonaPlex";
  }

  /** The sentence below "Live". */
  #line() {
    if (this.#call?.state !== "live") return;
    const { pushToTalk } = this.#settings;
    if (pushToTalk) this.#detail.textContent = this.#muted ? "Hold the space bar or the button to talk." : "You are heard.";
    else this.#detail.textContent = this.#muted ? "You are muted." : "Just talk. You can interrupt.";
  }

  /** @param {import("./call.js").Ready} ready */
  #ready(ready) {
    this.#readout.facts(ready);
    element("clock-limit", HTMLElement).textContent = ready.max_s ? ` / ${clockTime(ready.max_s)}` : "";
  }

  #tick() {
    if (this.#startedAt && this.running) this.#seconds = (performance.now() - this.#startedAt) / 1000;
    const [clock, time] = [element("clock", HTMLElement), clockTime(this.#seconds)];
    if (clock.textContent !== time) clock.textContent = time;
    if (this.#call?.state === "waking") this.#sleepy();
  }

  /** How far the wake-up is. */
  #sleepy() {
    const [gone, usual] = [(performance.now() - this.#wakingAt) / 1000, this.remote?.wake_s ?? 0];
    const late = gone > 1.5 * usual ? " It takes longer today." : "";
    this.#detail.textContent = `It sleeps while nobody talks. ${Math.round(gone)} of about ${Math.round(usual)} seconds.${late}`;
  }

  /**
   * @param {string} limit
   * @param {number} seconds
   */
  #warn(limit, seconds) {
    const time = `${Math.round(seconds)} seconds`;
    note(
      limit === "idle" ? `Are you still there? The call ends in ${time} unless you say something.` : `The call's time is up in ${time}.`,
      Math.min(seconds, 20),
    );
  }

  /**
   * Move the meters, both at once: 25 times a second is smooth, and twice that is twice the work.
   * @param {number} you
   * @param {number} agent
   */
  #levels(you, agent) {
    const shown = [you, agent].map((level) => Math.max(0, 1 + (20 * Math.log10(Math.max(level, 1e-5))) / RANGE_DB));
    this.#meters.forEach((meter, side) => (meter.style.transform = `scaleX(${shown[side].toFixed(2)})`));
    this.#rings.forEach((ring, index) => (ring.style.transform = `scale(${(0.85 + shown[1] * (0.36 - 0.16 * index)).toFixed(2)})`));
  }

  /** @param {Ending} ending */
  #ended(ending) {
    clearInterval(this.#clock);
    this.#levels(0, 0);
    this.#wakeLock?.release().catch(() => {});
    this.#wakeLock = null;
    this.#state.textContent = ending.title;
    this.#detail.textContent = ending.detail;
    element("dock", HTMLElement).hidden = true;
    element("after", HTMLElement).hidden = false;
    const again = button("again");
    const ways = {
      again: { label: "Talk again", go: () => this.#who && this.start(this.#who.choice, this.#who.name) },
      choose: { label: "Choose", go: this.#left },
      login: { label: "Enter the password", go: this.#left },
      reload: { label: "Reload the page", go: () => location.reload() },
    };
    const { label, go } = ways[ending.next];
    again.lastElementChild?.replaceChildren(label);
    again.onclick = go;
    again.focus({ preventScroll: true });
  }

  /** @param {Blob} file */
  #recorded(file) {
    const link = element("download-recording", HTMLAnchorElement);
    if (link.href) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(file);
    link.download = `${this.#who?.name} ${fileStamp()}.${file.type === "audio/ogg" ? "ogg" : "wav"}`;
    link.hidden = false;
  }

  async #stayAwake() {
    if (!("wakeLock" in navigator) || this.#wakeLock?.released === false) return;
    this.#wakeLock = await navigator.wakeLock.request("screen").catch(() => null);
    if (!this.running) this.#wakeLock?.release();
  }
}
