/** One call, from the click to its end: states, what leads from one to the next, and picking the line up again. */

import { callUrl } from "./api.js";
import { LoadError, Sound } from "./audio.js";
import { opusSupported } from "./opus.js";
import { EchoDetector } from "./echo.js";
import { Resumption } from "./resumption.js";
import { BROKEN, HUNG_UP, LOST, REFUSED, UNREACHABLE, endingOf, soundEnding, refusal } from "./endings.js";

/**
 * @typedef {"idle" | "asking" | "waking" | "connecting" | "queued" | "preparing" | "live" | "reconnecting" | "ended"} State
 * @typedef {import("./endings.js").Ending} Ending
 * @typedef {{ session: string, voice: string, seed: string, max_s: number, resume: string, engine: import("./api.js").EngineInfo }} Ready
 *
 * @typedef {object} CallListener what the page is told
 * @property {(state: State, place: number) => void} state `place` is that in the queue, 0 when there is none
 * @property {(ending: Ending) => void} ended once, after the state
 * @property {(ready: Ready) => void} ready
 * @property {(text: string) => void} text a piece of the agent's words
 * @property {(said: CallerText) => void} callerText words of the caller's, where the server hears them
 * @property {(limit: string, seconds: number) => void} warning a limit will end the call
 * @property {() => void} echo the agent hears itself
 * @property {() => void} microphoneLost
 * @property {(what: import("./audio.js").Held) => void} held the system has paused this, "" when it goes on
 * @property {(you: number, agent: number) => void} levels peaks, 25 times a second
 * @property {(stats: CallStats) => void} stats
 * @property {(file: Blob) => void} recording after the end, when something was recorded
 *
 * @typedef {{ text: string, start_ms: number, end_ms: number }} CallerText times of the call
 *
 * @typedef {Partial<import("./jitter.js").JitterStats & import("./line-worker.js").LineStats
 *   & { input_lag_ms: number, dropped: number }> & { codec: "opus" | "pcm" }} CallStats
 */

/** @type {Record<State, State[]>} */
const NEXT = {
  idle: ["asking"],
  asking: ["waking", "connecting", "ended"],
  waking: ["connecting", "ended"],
  connecting: ["waking", "preparing", "ended"],
  preparing: ["preparing", "queued", "live", "reconnecting", "ended"],
  queued: ["queued", "preparing", "live", "reconnecting", "ended"],
  live: ["reconnecting", "ended"],
  reconnecting: ["preparing", "live", "ended"],
  ended: [],
};

/** Pauses between attempts to reach the server again, and for how long to try, in milliseconds. */
const BACK_OFF = [300, 700, 1500, 3000, 5000];
const GIVE_UP = 120000;
/** The longest pause while the server keeps the conversation, which it does not do for long. */
const SOON = 1500;
/** In some browsers it tells of changes from one network to another. */
const NETWORK = /** @type {{ connection?: EventTarget }} */ (navigator).connection;

/** A call. Made in a click; used once. */
export class Call {
  /** @type {State} */
  #state = "idle";
  #choice;
  #listener;
  #sound;
  #worker = new Worker(new URL("line-worker.js", import.meta.url), { type: "module" });
  #detector = new EchoDetector();
  #opus = false;
  #microphoneLevel = 0;
  /** @type {CallStats} */
  #stats = { codec: "opus" };
  #message = "";
  #attempt = 0;
  #ending = new AbortController();
  #remote;
  #ticket;
  #lostAt = 0;
  #retry = 0;
  #recorded = false;
  #resumption = new Resumption();
  #wake = () => this.#again();

  /**
   * @param {import("./api.js").Choice} choice
   * @param {HTMLAudioElement} element plays the agent
   * @param {CallListener} listener
   * @param {import("./api.js").Remote | null} remote where calls are served, when not here
   * @param {(() => Promise<string>) | null} [ticket] gives one for each connection, where it is not the server that does
   */
  constructor(choice, element, listener, remote, ticket = null) {
    this.#choice = choice;
    this.#remote = remote;
    this.#ticket = ticket;
    this.#listener = listener;
    this.#sound = new Sound(element, {
      microphoneLevel: (level) => (this.#microphoneLevel = level),
      agentLevel: (level) => {
        if (this.#state === "ended") return;
        listener.levels(this.#microphoneLevel, level);
        if (this.#state === "live" && this.#detector.add(this.#microphoneLevel, level)) listener.echo();
      },
      buffer: (stats) => this.#report(stats),
      microphoneLost: () => listener.microphoneLost(),
      held: (what) => this.#state !== "ended" && listener.held(what),
    });
    this.#worker.onmessage = ({ data }) => this.#line(data);
    // Without a message, it is the worker's file that did not come.
    this.#worker.onerror = ({ message }) => this.#state !== "ended" && this.#end(message ? BROKEN : UNREACHABLE);
  }

  get state() {
    return this.#state;
  }

  /** Whether the conversation can go on when the line is picked up again. */
  get resumable() {
    return this.#resumption.possible;
  }

  /** Whether it has gone on, where the line was picked up again. */
  get resumed() {
    return this.#resumption.resumed;
  }

  /** The sound's devices, to be changed in mid-call. */
  get sound() {
    return this.#sound;
  }

  /**
   * @param {State} state
   * @param {number} [place]
   */
  #enter(state, place = 0) {
    if (!NEXT[this.#state].includes(state)) throw new Error(`A call cannot go from ${this.#state} to ${state}.`);
    this.#state = state;
    this.#listener.state(state, place);
  }

  /**
   * @param {import("./line-worker.js").Command} command
   * @param {Transferable[]} [transfer]
   */
  #command(command, transfer = []) {
    this.#worker.postMessage(command, transfer);
  }

  /**
   * Ask for the microphone, then call.
   * @param {{ microphone: string, speaker: string, volume: number }} devices
   */
  async start(devices) {
    this.#enter("asking");
    addEventListener("online", this.#wake);
    NETWORK?.addEventListener("change", this.#wake);
    try {
      const [{ microphone, speaker, both }, opus] = await Promise.all([this.#sound.open(devices), opusSupported()]);
      this.#opus = opus;
      this.#command({ type: "ports", microphone, speaker, both, rate: this.#sound.rate }, [microphone, speaker, both]);
    } catch (error) {
      if (this.#state === "asking") this.#end(error instanceof LoadError ? UNREACHABLE : soundEnding(error));
      return;
    }
    if (this.#state !== "asking") return;
    this.#enter(this.#remote ? "waking" : "connecting");
    this.#dial();
  }

  async #dial() {
    this.#message = "";
    const url = this.#remote ? await this.#wakeUp(this.#remote) : await this.#address();
    if (!url) return;
    if (this.#state === "waking") this.#enter("connecting");
    const resume = this.#resumption.possible;
    this.#command({ type: "open", url: this.#resumption.address(url), opus: this.#opus, resume });
  }

  /** The socket's address here; "" when the call is over or has no ticket. */
  async #address() {
    const state = this.#state;
    try {
      const ticket = await this.#ticket?.();
      return this.#state === state ? callUrl(this.#choice, this.#opus, undefined, ticket) : "";
    } catch (error) {
      if (this.#state === state) this.#end({ ...REFUSED, detail: error instanceof Error ? error.message : String(error) });
      return "";
    }
  }

  /**
   * The socket's address when the process that serves it is awake; "" when the call is over or that failed.
   * @param {import("./api.js").Remote} remote
   */
  async #wakeUp(remote) {
    const state = this.#state;
    const found = await import("./remote.js").then(
      ({ remoteUrl }) => remoteUrl(remote, this.#choice, this.#opus, this.#ending.signal, this.#ticket),
      () => UNREACHABLE,
    );
    if (this.#state !== state) return "";
    if (typeof found === "string") return found;
    this.#end(found);
    return "";
  }

  /** @param {import("./line-worker.js").Report} report */
  #line(report) {
    if (report.type === "recording") return this.#finish(report.file);
    if (this.#state === "ended") return;
    switch (report.type) {
      case "opened":
        return this.#resumption.possible ? undefined : this.#enter("preparing");
      case "handshake":
        this.#attempt = 0;
        return this.#enter("live");
      case "text":
        this.#resumption.heard();
        return this.#listener.text(report.text);
      case "error":
        this.#message = report.message;
        return;
      case "metadata":
        return this.#metadata(report.metadata);
      case "stats":
        return this.#report(report.stats);
      case "codec":
        // The browser's Opus broke in mid-call: go on without it.
        this.#opus = false;
        return this.#lost();
      case "closed":
        return void this.#closed(report.code, report.opened);
    }
  }

  /** @param {Record<string, any>} metadata */
  #metadata(metadata) {
    switch (metadata.type) {
      case "queued":
        return this.#enter("queued", metadata.place);
      case "preparing":
        return this.#enter("preparing");
      case "ready":
        this.#resumption.ready(/** @type {Ready} */ (metadata));
        return this.#listener.ready(/** @type {Ready} */ (metadata));
      case "caller_text":
        return this.#listener.callerText(/** @type {CallerText} */ (metadata));
      case "warning":
        return this.#listener.warning(metadata.limit, metadata.seconds);
      case "stats":
        return this.#report({ input_lag_ms: metadata.input_lag_ms, dropped: metadata.dropped });
    }
  }

  /** @param {Partial<CallStats>} stats */
  #report(stats) {
    Object.assign(this.#stats, stats, { codec: this.#opus ? "opus" : "pcm" });
    if (this.#state === "live") this.#listener.stats(this.#stats);
  }

  /**
   * @param {number} code
   * @param {boolean} opened whether the server had taken the call
   */
  async #closed(code, opened) {
    if (opened) {
      const ending = endingOf(code, this.#message);
      return ending ? this.#end(ending) : this.#lost();
    }
    const ending = await refusal(this.#choice);
    if (this.#state === "connecting") {
      // Another caller may have been faster, and a further machine must wake up.
      if (!this.#remote || ending !== REFUSED || this.#attempt++ > 0) return this.#end(ending ?? UNREACHABLE);
      this.#enter("waking");
      return this.#dial();
    }
    if (this.#state !== "reconnecting") return;
    if (ending && ending !== REFUSED) return this.#end(ending);
    if (ending && this.#resumption.possible) {
      this.#resumption.giveUp();
      this.#attempt = 0;
      this.#listener.state(this.#state, 0);
    }
    this.#lost();
  }

  /**
   * The line is gone: try again, sooner at first. The conversation goes on where the server has kept it; after that a
   * new connection is a new conversation for the agent.
   */
  #lost() {
    this.#command({ type: "close", goodbye: false });
    if (this.#state !== "reconnecting") {
      this.#lostAt = Date.now();
      this.#enter("reconnecting");
    }
    if (Date.now() - this.#lostAt > GIVE_UP) return this.#end(LOST);
    const kept = this.#resumption.possible;
    const usual = BACK_OFF[Math.min(this.#attempt, BACK_OFF.length - 1)];
    const pause = kept ? Math.min(this.#attempt && usual, SOON) : usual;
    this.#attempt += 1;
    // A little chance keeps the callers of a restarted server from arriving all at once.
    this.#retry = setTimeout(() => this.#dial(), pause * (0.8 + 0.4 * Math.random()));
  }

  /** The network is back, or another one: no need to wait, and no line to be trusted. */
  #again() {
    if (this.#state === "live") return this.#command({ type: "check" });
    if (this.#state !== "reconnecting") return;
    clearTimeout(this.#retry);
    this.#dial();
  }

  /** @param {boolean} on */
  record(on) {
    this.#recorded ||= on;
    this.#command({ type: "record", on });
  }

  /** Hang up. */
  hangUp() {
    if (this.#state !== "ended" && this.#state !== "idle") this.#end(HUNG_UP);
  }

  /** @param {Ending} ending */
  #end(ending) {
    removeEventListener("online", this.#wake);
    NETWORK?.removeEventListener("change", this.#wake);
    clearTimeout(this.#retry);
    this.#ending.abort();
    this.#command({ type: "close", goodbye: true });
    this.#command({ type: "finish" });
    this.#enter("ended");
    this.#sound.close();
    this.#listener.ended(ending);
  }

  /** @param {Blob | null} file */
  #finish(file) {
    this.#worker.terminate();
    if (file && this.#recorded) this.#listener.recording(file);
  }
}
