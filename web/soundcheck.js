/**
 * The sound check: the microphone's level as it is, tones to be heard, and whether the one hears the other. Loaded when it
 * is first used.
 */

import { DIRECT, openMicrophone } from "./audio.js";
import { soundEnding } from "./endings.js";

/** Level of a voice that is loud enough (-36 dB), and how many looks it must be there. */
const VOICE = 0.016;
const LOOKS = 8;
const LOOK_MS = 50;
/** Without a voice for so long there is something to be said. */
const SILENT_MS = 6000;
/** The meter shows levels from this many decibels below the loudest. */
const RANGE_DB = 60;
const TONE_HZ = 660;
const TONES = 3;
/** Of a tone, and of the pause after it; sound takes up to half of it to come back. */
const TONE_S = 0.5;
/** The microphone hears the speaker when the tones stand out of the pauses by so many decibels. */
const ECHO_DB = 12;
const START_MS = 5000;

const HEARD = "Your microphone works.";
const SILENT = "Nothing is heard. Speak up, pick another microphone, or see whether it is muted.";
const ECHO = "Your microphone hears your speaker. With headphones, or less volume, the agent will not hear itself.";
const NO_ECHO = "Your microphone does not hear your speaker. That is how it should be.";

/** One check at a time. */
export class SoundCheck {
  #settings;
  #say;
  #level;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  #timer = 0;
  #player = new Audio();

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {(words: string, heard?: boolean) => void} say `heard`: the microphone has proved itself
   * @param {(level: number) => void} level 0 to 1, for a meter
   */
  constructor(settings, say, level) {
    this.#settings = settings;
    this.#say = say;
    this.#level = level;
  }

  /** Whether the microphone is listened to. */
  get listening() {
    return this.#stream !== null;
  }

  /** Listen to the microphone until `stop`; says why when that cannot be. */
  async listen() {
    try {
      const context = this.#open();
      const stream = await openMicrophone(this.#settings.microphone);
      if (context !== this.#context) return stream.getTracks().forEach((track) => track.stop());
      this.#stream = stream;
      this.#analyser = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0 });
      context.createMediaStreamSource(stream).connect(this.#analyser);
      await this.#running(context);
      this.#watch(this.#analyser);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @param {AnalyserNode} analyser */
  #watch(analyser) {
    const samples = new Float32Array(LOOK_MS * 48);
    const end = performance.now() + SILENT_MS;
    let looks = 0;
    this.#say("Say something: the bar should move.");
    this.#timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      this.#level(Math.max(0, 1 + (20 * Math.log10(peak + 1e-6)) / RANGE_DB));
      if (looks >= LOOKS) return;
      if (peak > VOICE) looks += 1;
      if (looks === LOOKS) this.#say(HEARD, true);
      else if (performance.now() > end && !looks) this.#say(SILENT);
    }, LOOK_MS);
  }

  /** Play tones, and find out whether the microphone hears them, if it is listened to. */
  async tone() {
    try {
      const context = this.#open();
      const volume = new GainNode(context, { gain: 0 });
      const tone = new OscillatorNode(context, { frequency: TONE_HZ });
      tone.connect(volume);
      if (DIRECT) volume.connect(context.destination);
      else {
        const destination = context.createMediaStreamDestination();
        volume.connect(destination);
        this.#player.srcObject = destination.stream;
        const output = /** @type {{ setSinkId?: (id: string) => Promise<void> }} */ (this.#player);
        await output.setSinkId?.(this.#settings.speaker).catch(() => {});
      }
      await this.#running(context, DIRECT ? undefined : this.#player.play());
      this.#say("You should hear three tones.");
      const loud = 0.3 * this.#settings.volume ** 2;
      const begin = context.currentTime + 0.1;
      for (let number = 0; number < TONES; number++) {
        volume.gain.setTargetAtTime(loud, begin + 2 * TONE_S * number, 0.01);
        volume.gain.setTargetAtTime(0, begin + 2 * TONE_S * number + TONE_S, 0.01);
      }
      tone.start();
      const echo = await this.#compare(context, begin);
      tone.stop();
      if (context !== this.#context || echo === null) return;
      this.#say(this.listening ? (echo ? ECHO : NO_ECHO) : "Heard nothing? Pick another speaker, or turn the volume up.");
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * Whether the tones are louder in the microphone than the pauses; null when the check was stopped.
   * @param {AudioContext} context
   * @param {number} begin of the first tone, in the context's time
   */
  async #compare(context, begin) {
    /** Decibels at the tone's frequency, while it sounds and while it does not. */
    const [on, off] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
    while (context === this.#context && context.currentTime < begin + 2 * TONE_S * TONES) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      const place = ((context.currentTime - begin) / TONE_S) % 2;
      if (!this.#analyser || place < 0 || place % 1 < 0.5) continue;
      const spectrum = new Float32Array(this.#analyser.frequencyBinCount);
      this.#analyser.getFloatFrequencyData(spectrum);
      const bin = Math.round((TONE_HZ / context.sampleRate) * this.#analyser.fftSize);
      (place < 1 ? on : off).push(Math.max(-120, ...spectrum.subarray(bin - 2, bin + 3)));
    }
    if (context !== this.#context) return null;
    const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    return on.length > 0 && off.length > 0 && mean(on) - mean(off) > ECHO_DB;
  }

  #open() {
    if (!("AudioContext" in globalThis)) throw Object.assign(new Error(), { name: "UnsupportedError" });
    if (!navigator.mediaDevices) throw Object.assign(new Error(), { name: "CaptureOffError" });
    return (this.#context ??= new AudioContext());
  }

  /**
   * Wait until it sounds; a browser without a speaker would wait for ever.
   * @param {AudioContext} context
   * @param {Promise<void>} [playing]
   */
  #running(context, playing) {
    const late = new Promise((_, reject) =>
      setTimeout(() => reject(Object.assign(new Error(), { name: "NoSpeakerError" })), START_MS),
    );
    return Promise.race([Promise.all([context.resume(), playing]), late]);
  }

  /** @param {unknown} error */
  #fail(error) {
    const { title, detail } = soundEnding(error);
    this.stop();
    this.#say(`${title}. ${detail}`);
  }

  /** Let the devices go. */
  stop() {
    clearInterval(this.#timer);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#player.pause();
    this.#player.srcObject = null;
    this.#context?.close();
    this.#context = this.#stream = this.#analyser = null;
    this.#level(0);
  }
}
