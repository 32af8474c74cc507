/**
 * Sound in and out of the device: the microphone and the agent's voice, with the worklets between them and the line.
 *
 *   microphone -> capture -> line            line -> playback -> volume -> <audio> -> speaker
 *            \------------> both (stereo, for the recording) <------/
 *
 * The agent is played by an <audio> element, so that echo cancellation knows it and the speaker can be chosen; in WebKit by
 * the context itself.
 */

/**
 * @typedef {object} SoundListener
 * @property {(level: number) => void} microphoneLevel peak, 25 times a second
 * @property {(level: number) => void} agentLevel peak, 25 times a second
 * @property {(stats: import("./jitter.js").JitterStats) => void} buffer once a second
 * @property {() => void} microphoneLost it was unplugged and no other was found
 * @property {(what: Held) => void} held the system has paused this, for an alarm or a phone call; "" when it goes on
 *
 * @typedef {object} Ports for the line's worker
 * @property {MessagePort} microphone
 * @property {MessagePort} speaker
 * @property {MessagePort} both
 *
 * @typedef {"" | "sound" | "microphone"} Held
 */

/**
 * Whether the context plays by itself: in WebKit, the one engine whose elements cannot be captured. WebKitGTK's elements
 * are silent with the stream of a context, and WebKit's echo cancellation is the system's, for whatever sounds.
 */
export const DIRECT = !["captureStream", "mozCaptureStream"].some((name) => name in HTMLMediaElement.prototype);
/** A browser without a sound device waits for one for ever. */
const START_MS = 5000;

/** The microphone as calls use it. @param {string} deviceId "" for the default */
export async function openMicrophone(deviceId) {
  const wanted = (/** @type {string} */ id) =>
    navigator.mediaDevices.getUserMedia({
      audio: {
        echoCancellation: true,
        noiseSuppression: true,
        autoGainControl: true,
        channelCount: 1,
        ...(id && { deviceId: { exact: id } }),
      },
    });
  // A remembered microphone that is not there today gives way to the default.
  return wanted(deviceId).catch((error) => (deviceId && error.name !== "NotAllowedError" ? wanted("") : Promise.reject(error)));
}

/** A part of the page did not come from the server. */
export class LoadError extends Error {}

/** @param {string} name */
const failure = (name) => Object.assign(new Error(name), { name });

/** Everything between the devices and the line, for one call. */
export class Sound {
  /** @type {AudioContext | null} */
  #context = null;
  #element;
  #listener;
  #muted = false;
  #started = false;
  #closed = false;
  #microphone = "";
  /** @type {Held} */
  #held = "";
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  /** @type {{ capture: AudioWorkletNode, playback: AudioWorkletNode, both: AudioWorkletNode, merger: ChannelMergerNode, volume: GainNode } | null} */
  #nodes = null;

  /**
   * @param {HTMLAudioElement} element plays the agent
   * @param {SoundListener} listener
   */
  constructor(element, listener) {
    this.#element = element;
    this.#listener = listener;
  }

  /** Samples a second of the devices. */
  get rate() {
    return this.#context?.sampleRate ?? 0;
  }

  /**
   * Ask for the microphone and build the way of the sound; in a click, so that the browser lets it sound. Raises what
   * `getUserMedia` raises, LoadError, or an error named UnsupportedError, CaptureOffError or NoSpeakerError.
   * @param {{ microphone: string, speaker: string, volume: number }} devices
   * @returns {Promise<Ports>}
   */
  async open({ microphone, speaker, volume }) {
    if (!("AudioContext" in globalThis && "AudioWorkletNode" in globalThis)) throw failure("UnsupportedError");
    if (!navigator.mediaDevices) throw failure("CaptureOffError");
    const context = (this.#context = new AudioContext({ latencyHint: "interactive" }));
    this.#microphone = microphone;
    const modules = ["capture-worklet.js", "playback-worklet.js"].map((name) =>
      context.audioWorklet.addModule(new URL(name, import.meta.url)).catch(() => Promise.reject(new LoadError(name))),
    );
    const [stream] = await Promise.all([openMicrophone(microphone), ...modules]);
    if (this.#closed) {
      stream.getTracks().forEach((track) => track.stop());
      throw new DOMException("The call was ended.", "AbortError");
    }
    const node = (/** @type {string} */ name, /** @type {AudioWorkletNodeOptions} */ options) => {
      const { port1, port2 } = new MessageChannel();
      const made = new AudioWorkletNode(context, name, options);
      made.port.postMessage(port1, [port1]);
      return /** @type {const} */ ([made, port2]);
    };
    const input = (/** @type {number} */ channels) => ({
      numberOfOutputs: 0,
      channelCount: channels,
      channelCountMode: /** @type {const} */ ("explicit"),
      processorOptions: { channels },
    });
    const [capture, microphonePort] = node("capture", input(1));
    const [both, bothPort] = node("capture", input(2));
    const [playback, speakerPort] = node("playback", { numberOfInputs: 0, outputChannelCount: [1] });
    const merger = context.createChannelMerger(2);
    const loudness = context.createGain();
    playback.connect(loudness);
    playback.connect(merger, 0, 1);
    merger.connect(both);
    capture.port.onmessage = ({ data }) => this.#listener.microphoneLevel(data);
    playback.port.onmessage = ({ data }) => {
      this.#listener.agentLevel(data.level);
      if (data.stats) this.#listener.buffer(data.stats);
    };
    this.#nodes = { capture, playback, both, merger, volume: loudness };
    this.#use(stream);
    this.setVolume(volume);
    if (DIRECT) loudness.connect(context.destination);
    else {
      const destination = context.createMediaStreamDestination();
      loudness.connect(destination);
      this.#element.srcObject = destination.stream;
    }
    await this.setSpeaker(speaker);
    await this.#play(context);
    return { microphone: microphonePort, speaker: speakerPort, both: bothPort };
  }

  /** @param {AudioContext} context */
  async #play(context) {
    const late = new Promise((_, reject) => setTimeout(() => reject(failure("NoSpeakerError")), START_MS));
    await Promise.race([Promise.all([context.resume(), DIRECT || this.#element.play()]), late]);
    this.#started = true;
    context.onstatechange = this.#element.onpause = this.#element.onplaying = () => this.#check();
    this.#check();
  }

  /** Tell what the system has paused, when that changes. */
  #check() {
    if (this.#closed || !this.#started) return;
    const silent = this.#context?.state !== "running" || (!DIRECT && this.#element.paused);
    const held = silent ? "sound" : this.#stream?.getAudioTracks()[0]?.muted ? "microphone" : "";
    if (held !== this.#held) this.#listener.held((this.#held = held));
  }

  /** @param {MediaStream} stream */
  #use(stream) {
    this.#drop();
    if (!this.#context) return;
    this.#stream = stream;
    this.#source = this.#context.createMediaStreamSource(stream);
    if (this.#nodes) {
      this.#source.connect(this.#nodes.capture);
      this.#source.connect(this.#nodes.merger, 0, 0);
    }
    this.setMuted(this.#muted);
    const [track] = stream.getAudioTracks();
    track.onended = () => this.setMicrophone("").catch(() => this.#listener.microphoneLost());
    track.onmute = track.onunmute = () => this.#check();
    this.#check();
  }

  #drop() {
    this.#source?.disconnect();
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = track.onmute = track.onunmute = null;
      track.stop();
    }
    this.#source = this.#stream = null;
  }

  /** Change the microphone in mid-call. @param {string} deviceId */
  async setMicrophone(deviceId) {
    this.#microphone = deviceId;
    const stream = await openMicrophone(deviceId);
    if (this.#closed) stream.getTracks().forEach((track) => track.stop());
    else this.#use(stream);
  }

  /** Change the speaker; one that is gone gives way to the default. @param {string} deviceId */
  async setSpeaker(deviceId) {
    const output = /** @type {{ setSinkId?: (id: string) => Promise<void> } | null} */ (DIRECT ? this.#context : this.#element);
    await output?.setSinkId?.(deviceId).catch(() => {});
  }

  /** @param {number} volume 0 to 1 */
  setVolume(volume) {
    // Squared, because loudness is heard so; set on a node, because some phones ignore the element's volume.
    this.#nodes?.volume.gain.setTargetAtTime(volume ** 2, this.#context?.currentTime ?? 0, 0.02);
  }

  /** A muted microphone gives silence; the agent goes on. @param {boolean} muted */
  setMuted(muted) {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Go on after the system has paused the sound or the microphone; in a tap, or when the page is looked at again. */
  wake() {
    if (this.#closed || !this.#started) return;
    if (this.#context?.state !== "running") this.#context?.resume().catch(() => {});
    if (!DIRECT && this.#element.paused) this.#element.play().catch(() => {});
    // What the system holds back is given again to who asks again.
    if (this.#held === "microphone") this.setMicrophone(this.#microphone).catch(() => {});
  }

  /** Let the devices go. May be called at any time. */
  close() {
    this.#closed = true;
    this.#drop();
    this.#element.srcObject = null;
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }
}
