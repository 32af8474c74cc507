/** The view of a call: whose turn it is, what is happening, and what is left when it is over. */

import { hue } from "./avatar.js";
import { Call } from "./call.js";
import { ECHO_HINT, GOES_ON, HELD, HOLD_TO_TALK, LOST_MICROPHONE, TURNS, WORDS, queuedAt } from "./callwords.js";
import { Dock } from "./dock.js";
import { announce, button, clockTime, element, note, showView, starterLine } from "./dom.js";
import { Readout } from "./readout.js";
import { Redial } from "./redial.js";
import { saveSettings } from "./settings.js";
import { Shape } from "./shape.js";
import { Player, offerTranscript, showFigures } from "./summary.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";
import { Warning } from "./warning.js";

/**
 * @typedef {import("./choose.js").Callee} Callee
 * @typedef {import("./call.js").State} State
 * @typedef {import("./endings.js").Ending} Ending
 * @typedef {import("./turns.js").Turn} Turn
 */

/** Shows one call after another. */
export class CallView {
  /** @type {Call | null} */
  #call = null;
  #settings;
  #left;
  /** @type {Callee | null} */
  #who = null;
  #transcript = new Transcript("");
  #readout = new Readout();
  #turns = new Turns();
  #timeline = new Timeline(this.#turns);
  #warning = new Warning();
  #player = new Player();
  #shape = new Shape();
  #dock;
  /** @type {Turn | null} */
  #turn = null;
  /** @type {import("./audio.js").Held} */
  #held = "";
  #startedAt = 0;
  #wakingAt = 0;
  #seconds = 0;
  #clock = 0;
  #redial = new Redial();
  /** @type {WakeLockSentinel | null} */
  #wakeLock = null;
  /** Where calls are served, when not here. @type {import("./api.js").Remote | null} */
  remote = null;
  #state = element("call-state", HTMLElement);
  #detail = element("call-detail", HTMLElement);

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {() => void} left the caller wants to choose again, or to log in
   */
  constructor(settings, left) {
    this.#settings = settings;
    this.#left = () => {
      this.#rest();
      left();
    };
    this.#dock = new Dock({
      mute: (muted) => this.#mute(muted),
      record: (on) => this.#call?.record(on),
      end: () => this.hangUp(),
      pushToTalk: () => settings.pushToTalk,
      seconds: () => this.#time(),
    });
    button("back").onclick = this.#left;
    // One tap, wherever, or a look at the page goes on with what the system has paused.
    addEventListener("click", () => this.#held && this.#call?.sound.wake(), { capture: true });
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

  /** The call's buttons, while there is a call. */
  get dock() {
    return this.running ? this.#dock : null;
  }

  /**
   * Call.
   * @param {Callee} who
   * @param {boolean} [again] by itself, since everyone was busy
   */
  start(who, again = false) {
    this.#rest();
    if (!again) this.#redial.reset();
    this.#who = who;
    const { choice, name } = who;
    element("starters", HTMLElement).textContent = starterLine(who.starters);
    const transcript = (this.#transcript = new Transcript(name));
    offerTranscript(transcript, name);
    this.#readout = new Readout();
    this.#turns = new Turns();
    this.#startedAt = this.#seconds = 0;
    this.#turn = null;
    this.#held = "";
    this.#player.clear();
    const { style } = document.documentElement;
    style.setProperty("--agent-hue", String(hue(name)));
    style.setProperty("--you-hue", Math.abs(hue(name) - 170) < 60 ? "32" : "170");
    element("call-name", HTMLElement).textContent = name;
    element("clock-limit", HTMLElement).textContent = "";
    element("held", HTMLElement).hidden = true;
    element("after", HTMLElement).hidden = true;
    delete document.body.dataset.outcome;
    delete document.body.dataset.talked;
    /** @type {import("./call.js").CallListener} */
    const listener = {
      state: (state, place) => this.#show(state, place),
      ended: (ending) => this.#ended(ending),
      ready: (ready) => this.#ready(ready),
      text: (text) => transcript.add(text, this.#time()),
      callerText: (said) => transcript.callerText(said),
      warning: (limit, seconds) => this.#warning.show(limit, seconds),
      echo: () => note(ECHO_HINT, 15),
      microphoneLost: () => note(LOST_MICROPHONE, 30),
      held: (what) => this.#hold(what),
      levels: (you, agent) => this.#levels(you, agent),
      stats: (stats) => this.#readout.show(stats),
      recording: (file) => this.#player.show(file, name, this.#dock.recorded, this.#timeline, transcript),
    };
    this.#call = new Call(choice, element("agent-audio", HTMLAudioElement), listener, this.remote);
    this.#dock.start();
    showView("call");
    this.#timeline = new Timeline(this.#turns);
    this.#shape.start(name);
    this.#clock = setInterval(() => this.#tick(), 250);
    this.#tick();
    this.#call.start(this.#settings);
    this.#stayAwake();
  }

  /** Take over what the sound settings say. @param {keyof import("./settings.js").Settings} changed */
  apply(changed) {
    const { microphone, speaker, volume } = this.#settings;
    if (!this.#call || !this.running) return;
    if (changed === "pushToTalk") this.#dock.arrange();
    if (changed === "volume") this.#call.sound.setVolume(volume);
    if (changed === "speaker") this.#call.sound.setSpeaker(speaker);
    if (changed === "microphone") this.#call.sound.setMicrophone(microphone).catch(() => note(LOST_MICROPHONE, 30));
  }

  /** @param {boolean} muted */
  #mute(muted) {
    this.#call?.sound.setMuted(muted);
    this.#shape.muted = muted;
    this.#warning.tick(muted);
    if (this.#call?.state === "live") this.#line(muted ? "muted" : "listening");
  }

  hangUp() {
    this.#call?.hangUp();
  }

  /** Seconds since the call went live. */
  #time() {
    return this.#startedAt && this.running ? (performance.now() - this.#startedAt) / 1000 : this.#seconds;
  }

  /**
   * @param {State} state
   * @param {number} place
   */
  #show(state, place) {
    document.body.dataset.call = state;
    this.#shape.waiting = state !== "live";
    const [words, detail] = WORDS[state];
    this.#state.textContent = state === "queued" ? queuedAt(place) : words;
    this.#detail.textContent = detail;
    if (words) announce(`${this.#state.textContent}. ${detail}`);
    if (state === "waking") this.#wakingAt = performance.now();
    if (state === "reconnecting" && this.#call?.resumable) {
      this.#detail.textContent = GOES_ON;
      announce(`${words}. ${GOES_ON}`);
    }
    if (state === "live") {
      document.body.dataset.talked = "";
      if (!this.#settings.checked) saveSettings(Object.assign(this.#settings, { checked: true }));
      if (!this.#startedAt) this.#startedAt = performance.now();
      else if (!this.#call?.resumed) this.#transcript.mark("Connected again. The conversation begins anew.");
      this.#line(this.#dock.muted ? "muted" : "listening");
    }
    this.#dock.setRecordable(this.#startedAt > 0);
    document.title = state === "live" ? `Live: ${this.#who?.name}` : "PersonaPlex";
  }

  /** Say whose turn it is. @param {Turn} turn */
  #line(turn) {
    this.#turn = turn;
    if (this.#held) return;
    document.body.dataset.turn = turn;
    const [words, detail] = TURNS[turn];
    const { pushToTalk } = this.#settings;
    this.#state.textContent = words;
    this.#detail.textContent = turn === "muted" && pushToTalk ? HOLD_TO_TALK : turn === "listening" && pushToTalk ? "You are heard." : detail;
  }

  /** @param {import("./audio.js").Held} what */
  #hold(what) {
    this.#held = what;
    const [words, detail] = HELD[what];
    element("held", HTMLElement).hidden = !what;
    element("held-why", HTMLElement).textContent = detail;
    document.body.toggleAttribute("data-held", what !== "");
    announce(what ? `${words}. ${detail} Press Go on.` : "The sound goes on.");
    if (what) [this.#state.textContent, this.#detail.textContent] = [words, ""];
    else if (this.#call?.state === "live" && this.#turn) this.#line(this.#turn);
  }

  /** @param {import("./call.js").Ready} ready */
  #ready(ready) {
    this.#readout.facts(ready);
    element("clock-limit", HTMLElement).textContent = ready.max_s ? ` / ${clockTime(ready.max_s)}` : "";
  }

  #tick() {
    this.#seconds = this.#time();
    const [clock, time] = [element("clock", HTMLElement), clockTime(this.#seconds)];
    if (clock.textContent !== time) clock.textContent = time;
    this.#dock.tick();
    this.#warning.tick(this.#dock.muted);
    if (this.#startedAt) this.#timeline.draw(this.#seconds);
    if (this.#call?.state === "waking") this.#sleepy();
  }

  /** How far the wake-up is. */
  #sleepy() {
    const [gone, usual] = [(performance.now() - this.#wakingAt) / 1000, this.remote?.wake_s ?? 0];
    const late = gone > 1.5 * usual ? " It takes longer today." : "";
    this.#detail.textContent = `It sleeps while nobody talks. ${Math.round(gone)} of about ${Math.round(usual)} seconds.${late}`;
  }

  /**
   * Both sides' levels of one moment.
   * @param {number} you
   * @param {number} agent
   */
  #levels(you, agent) {
    this.#shape.add(you, agent);
    if (this.#call?.state !== "live") return;
    const { you: caller, agent: other } = this.#turns;
    const spoke = other.active;
    const turn = this.#turns.add(you, agent, this.#dock.muted, this.#time());
    if (turn !== this.#turn) this.#line(turn);
    if (caller.active && caller.last) {
      this.#transcript.spoke(caller.last);
      if (!this.#dock.muted) this.#warning.spoke();
    }
    if (spoke && !other.active && other.last) {
      const between = caller.last && caller.last.start > other.last.start && caller.last.start < other.last.end + 0.3;
      this.#transcript.stopped(other.last.end, Boolean(between));
    }
  }

  /** @param {Ending} ending */
  #ended(ending) {
    clearInterval(this.#clock);
    this.#warning.clear();
    this.#shape.stop();
    this.#dock.finish(this.#seconds);
    this.#timeline.draw(this.#seconds, true);
    this.#wakeLock?.release().catch(() => {});
    this.#wakeLock = null;
    showFigures(this.#turns, this.#seconds);
    document.body.dataset.outcome = ending.calm ? "calm" : "failed";
    document.body.removeAttribute("data-held");
    element("held", HTMLElement).hidden = true;
    this.#state.textContent = ending.title;
    this.#detail.textContent = ending.detail;
    announce(`${ending.title}. ${ending.detail}`);
    element("after", HTMLElement).hidden = false;
    const again = button("again");
    const ways = {
      again: { label: this.#startedAt ? "Call again" : "Try again", go: () => this.#who && this.start(this.#who) },
      choose: { label: "Choose", go: this.#left },
      login: { label: "Enter the password", go: this.#left },
      reload: { label: "Reload the page", go: () => location.reload() },
    };
    const { label, go } = ways[ending.next];
    again.lastElementChild?.replaceChildren(label);
    again.onclick = go;
    again.focus({ preventScroll: true });
    if (ending.retry) this.#redial.later(ending.detail, this.#detail, () => this.#who && this.start(this.#who, true));
  }

  /** Nothing goes on by itself any more. */
  #rest() {
    clearInterval(this.#clock);
    this.#redial.cancel();
    this.#shape.stop();
    this.#player.clear();
  }

  async #stayAwake() {
    if (!("wakeLock" in navigator) || this.#wakeLock?.released === false) return;
    this.#wakeLock = await navigator.wakeLock.request("screen").catch(() => null);
    if (!this.running) this.#wakeLock?.release();
  }
}
