/** What a call's view says, in words. */

/**
 * @typedef {import("./call.js").State} State
 * @typedef {import("./turns.js").Turn} Turn
 */

/** What each state says, and what there is to know about it. @type {Record<State, [string, string]>} */
export const WORDS = {
  idle: ["", ""],
  asking: ["Asking for your microphone", "Your browser may ask you to allow it."],
  waking: ["Waking the model", ""],
  connecting: ["Connecting", ""],
  queued: ["Waiting for a free line", "You will be connected as soon as a line is free. Keep this page open."],
  preparing: ["Preparing the voice", ""],
  live: ["Live", ""],
  reconnecting: ["Reconnecting", "The connection was lost. The agent will not remember what was said before."],
  ended: ["", ""],
};
/** @type {Record<Turn, [string, string]>} */
export const TURNS = {
  listening: ["Listening", "Just talk. You can interrupt."],
  heard: ["Listening", "You are heard."],
  speaking: ["Speaking", "You can interrupt at any time."],
  interrupting: ["You are interrupting", "You are both heard."],
  both: ["Both are speaking", "You are both heard."],
  muted: ["You are muted", "Nothing is heard from you."],
};
/** Where the server keeps the conversation. */
export const GOES_ON = "The connection was lost. The conversation goes on as soon as it is back.";
/** @param {number} place */
export const queuedAt = (place) => `You are number ${place} in line`;
export const HOLD_TO_TALK = "Hold the space bar or the button to talk.";
/** What the system holds, and what is said then. @type {Record<import("./audio.js").Held, [string, string]>} */
export const HELD = {
  "": ["", ""],
  sound: ["The sound is paused", "Your device paused it, perhaps for an alarm or a phone call. The call goes on without you."],
  microphone: ["Your microphone is paused", "Your device gave it to something else. The agent does not hear you."],
};
export const ECHO_HINT = "It sounds as if the agent hears itself. Headphones, or a lower volume, help.";
export const LOST_MICROPHONE = "Your microphone is gone. Plug it in again or pick another in the sound settings.";
