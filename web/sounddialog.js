/** The sound settings: microphone, speaker, volume and how to talk, before and during a call. */

import { button, closeByBackdrop, element } from "./dom.js";
import { saveSettings } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */

/** Keeps the settings and their controls in step. */
export class SoundDialog {
  #dialog = element("sound", HTMLDialogElement);
  #microphone = element("microphone", HTMLSelectElement);
  #speaker = element("speaker", HTMLSelectElement);
  #settings;
  /** @type {import("./soundcheck.js").SoundCheck | null} */
  #check = null;

  /**
   * @param {Settings} settings changed in place, and remembered
   * @param {(changed: keyof Settings) => void} changed
   */
  constructor(settings, changed) {
    this.#settings = settings;
    const volume = element("volume", HTMLInputElement);
    const pushToTalk = element("push-to-talk", HTMLInputElement);
    const keys = element("single-keys", HTMLInputElement);
    volume.value = String(settings.volume);
    pushToTalk.checked = settings.pushToTalk;
    keys.checked = settings.shortcuts;
    /** @type {(name: keyof Settings, value: string | number | boolean) => void} */
    const set = (name, value) => {
      Object.assign(settings, { [name]: value });
      saveSettings(settings);
      changed(name);
    };
    this.#microphone.onchange = () => {
      set("microphone", this.#microphone.value);
      if (this.#check?.listening) this.#listen();
    };
    this.#speaker.onchange = () => set("speaker", this.#speaker.value);
    volume.oninput = () => set("volume", Number(volume.value));
    pushToTalk.onchange = () => set("pushToTalk", pushToTalk.checked);
    keys.onchange = () => set("shortcuts", keys.checked);
    element("speaker-field", HTMLElement).hidden = !("setSinkId" in HTMLMediaElement.prototype);
    button("open-sound").onclick = () => this.open();
    button("first-check").onclick = () => {
      this.open();
      this.#listen();
    };
    button("check-microphone").onclick = () => (this.#check?.listening ? this.#stopCheck() : this.#listen());
    button("check-tone").onclick = async () => (await this.#load())?.tone();
    this.#dialog.addEventListener("close", () => this.#stopCheck());
    this.showFirst();
    closeByBackdrop(this.#dialog);
    navigator.mediaDevices?.addEventListener("devicechange", () => this.refresh());
  }

  /** Offer a sound check to those who have not talked here yet. */
  showFirst() {
    button("first-check").hidden = this.#settings.checked;
  }

  /** The sound check; null when the server does not give it. */
  async #load() {
    try {
      const { SoundCheck } = await import("./soundcheck.js");
      const meter = element("check-level", HTMLMeterElement);
      this.#check ??= new SoundCheck(
        this.#settings,
        (words, heard) => this.#say(words, heard),
        (level) => (meter.value = level),
      );
    } catch {
      this.#say("The server cannot be reached. Reload the page.");
    }
    return this.#check;
  }

  async #listen() {
    this.#label("Stop the test");
    const check = await this.#load();
    check?.stop();
    await check?.listen();
    this.#label(check?.listening ? "Stop the test" : "Test microphone");
  }

  #stopCheck() {
    this.#check?.stop();
    this.#say("");
    this.#label("Test microphone");
  }

  /** What the button of the microphone does. @param {string} words */
  #label(words) {
    button("check-microphone").lastElementChild?.replaceChildren(words);
  }

  /**
   * @param {string} words
   * @param {boolean} [heard] the microphone has proved itself
   */
  #say(words, heard = false) {
    element("check-says", HTMLElement).textContent = words;
    if (!heard || this.#settings.checked) return;
    saveSettings(Object.assign(this.#settings, { checked: true }));
    this.showFirst();
  }

  open() {
    this.refresh();
    this.#dialog.showModal();
  }

  /** List the devices there are now. Browsers name them once the microphone is allowed. */
  async refresh() {
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    this.#fill(this.#microphone, devices, "audioinput", this.#settings.microphone);
    this.#fill(this.#speaker, devices, "audiooutput", this.#settings.speaker);
    element("devices-hint", HTMLElement).hidden = devices.some(({ label }) => label);
  }

  /**
   * @param {HTMLSelectElement} select
   * @param {MediaDeviceInfo[]} devices
   * @param {MediaDeviceKind} kind
   * @param {string} chosen
   */
  #fill(select, devices, kind, chosen) {
    const named = devices.filter((device) => device.kind === kind && device.label && !["default", ""].includes(device.deviceId));
    select.replaceChildren(
      new Option("The system's default", ""),
      ...named.map(({ label, deviceId }) => new Option(label, deviceId)),
    );
    select.value = named.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
  }
}
