/** What this browser remembers from visit to visit. Nothing said in a call is kept. */

const KEY = "personaplex";

/**
 * @typedef {object} Settings
 * @property {string} persona the last one talked to
 * @property {string} microphone device id, "" for the default
 * @property {string} speaker device id, "" for the default
 * @property {number} volume 0 to 1
 * @property {boolean} pushToTalk
 * @property {boolean} shortcuts whether single keys work
 * @property {boolean} checked whether the sound has proved itself, in a check or a call
 */

/** @type {Settings} */
const DEFAULTS = { persona: "", microphone: "", speaker: "", volume: 1, pushToTalk: false, shortcuts: true, checked: false };

/** @returns {Settings} */
export function loadSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // A browser that keeps nothing (private window, full disk) still talks.
  }
}
