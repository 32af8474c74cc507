/** Fetches and plays samples of voices. Loaded when one is first asked for. */

import { ApiError } from "./api.js";

/** Plays one at a time. */
export class VoiceSample {
  #audio = new Audio();
  #settings;
  /** Addresses of what was fetched, by voice. @type {Map<string, string>} */
  #fetched = new Map();
  #stopped = new AbortController();

  /** @param {import("./settings.js").Settings} settings */
  constructor(settings) {
    this.#settings = settings;
  }

  /**
   * Play a voice; resolves when it is over or stopped. Raises ApiError when the server does not give it, and what
   * `<audio>` raises when the browser cannot play it.
   * @param {string} voice
   * @param {() => void} sounds it begins
   */
  async play(voice, sounds) {
    this.stop();
    const { signal } = (this.#stopped = new AbortController());
    const address = this.#fetched.get(voice) ?? (await fetchSample(voice, signal));
    if (!address || signal.aborted) return;
    this.#fetched.set(voice, address);
    const audio = this.#audio;
    audio.src = address;
    audio.volume = this.#settings.volume ** 2;
    const output = /** @type {{ setSinkId?: (id: string) => Promise<void> }} */ (audio);
    await output.setSinkId?.(this.#settings.speaker).catch(() => {});
    const over = new Promise((resolve, reject) => {
      audio.onended = resolve;
      audio.onerror = reject;
      signal.addEventListener("abort", resolve);
    });
    await Promise.race([audio.play(), over]);
    if (signal.aborted) return audio.pause();
    sounds();
    await over;
  }

  stop() {
    this.#stopped.abort();
    this.#audio.pause();
  }
}

/**
 * The address of a sample in the browser's memory; "" when it is not wanted any more.
 * @param {string} voice
 * @param {AbortSignal} signal
 */
async function fetchSample(voice, signal) {
  const response = await fetch(`voices/${encodeURIComponent(voice)}/sample`, { signal }).catch(() => null);
  if (response?.ok) return URL.createObjectURL(await response.blob());
  if (signal.aborted) return "";
  const body = await response?.json().catch(() => null);
  throw new ApiError(body?.error ?? "The server cannot be reached.", response?.status ?? 0);
}
