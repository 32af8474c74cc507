/** Why a call ended, in sentences: what happened and what to do. */

import { ApiError, getPersonas, getSession, getVoices } from "./api.js";

/**
 * @typedef {object} Ending
 * @property {string} title what happened
 * @property {string} detail what to do
 * @property {"again" | "choose" | "login" | "reload"} next the way on that is offered first
 * @property {boolean} [calm] it is no failure
 * @property {boolean} [retry] it may be over soon: the page tries again by itself
 */

/** @type {Ending} */
export const HUNG_UP = { title: "Call ended", detail: "Thanks for talking.", next: "again", calm: true };

/** @type {Ending} */
export const LOST = {
  title: "The connection was lost",
  detail: "The server could not be reached for a while. Check your network, then call again.",
  next: "again",
};

/** The first connection failed and the server does not answer. @type {Ending} */
export const UNREACHABLE = {
  title: "The server cannot be reached",
  detail: "It may be starting or your network may be down. Try again in a moment.",
  next: "again",
};

/** A fault of this page. @type {Ending} */
export const BROKEN = { title: "Something in this page failed", detail: "Reload the page and try again.", next: "reload" };

/** For a reason that the server's other answers do not show; it may be on its way down. @type {Ending} */
export const REFUSED = { title: "The server refused the call", detail: "Reload the page and try once more.", next: "reload" };

/** By close code; the server's own sentence, where it sent one, takes the place of `detail`. @type {Record<number, Ending>} */
const CODES = {
  1000: { title: "The agent hung up", detail: "Call again whenever you like.", next: "again", calm: true },
  1003: { title: "The server could not take the call", detail: "Choose again, or reload the page.", next: "choose" },
  1008: { title: "The server refused the call", detail: "Reload the page and try again.", next: "reload" },
  1009: { title: "The server could not take the sound", detail: "Reload the page and try again.", next: "reload" },
  1011: { title: "The model stopped working", detail: "Nothing you did. Try again in a moment.", next: "again" },
  1013: { title: "Everyone is busy", detail: "Every slot is taken just now.", next: "again", retry: true },
  4000: { title: "Time is up", detail: "The call reached its longest duration. Call again to go on.", next: "again", calm: true },
  4001: {
    title: "It went quiet",
    detail: "Nothing was heard from you for a while. Check that your microphone is on.",
    next: "again",
    calm: true,
  },
  4002: { title: "Your network is too slow", detail: "The agent's voice could not keep up. Try another network.", next: "again" },
  4003: { title: "The voice took too long to prepare", detail: "The server may be busy. Try again in a moment.", next: "again" },
  4004: { title: "The server refused the sound", detail: "It came faster than speech. Reload the page and try again.", next: "reload" },
  4010: { title: "The call was ended", detail: "Call again whenever you like.", next: "again", calm: true },
};

/** Close codes after which the line is picked up again by itself: lost, server restarting. */
const RECONNECT = [1001, 1005, 1006, 1012];

/**
 * The ending that a close code means, or null when the line should be picked up again.
 * @param {number} code
 * @param {string} message what the server said before, or ""
 * @returns {Ending | null}
 */
export function endingOf(code, message) {
  if (RECONNECT.includes(code)) return null;
  const ending = CODES[code] ?? { title: "The call ended", detail: `The server closed it (code ${code}).`, next: "again" };
  return message && !ending.retry ? { ...ending, detail: message } : ending;
}

/**
 * Why the sound could not be started.
 * @param {unknown} error
 * @returns {Ending}
 */
export function soundEnding(error) {
  if (!isSecureContext) {
    return {
      title: "This page is not secure",
      detail: "Browsers give the microphone to secure pages only. Open this address with https://, or on the same machine with localhost.",
      next: "reload",
    };
  }
  // Not every browser's OverconstrainedError is a DOMException.
  switch (Object(error).name) {
    case "UnsupportedError":
      return {
        title: "This browser cannot make calls",
        detail: "It has no AudioContext, or not all of one. Use a current Chrome, Edge, Firefox or Safari.",
        next: "reload",
      };
    case "CaptureOffError":
      return {
        title: "The microphone is switched off in this browser",
        detail: "The browser gives it to no page. Switch capture on in its settings, or try another browser.",
        next: "reload",
      };
    case "NoSpeakerError":
      return {
        title: "No speaker found",
        detail: "Plug in or switch on a speaker or headphones, check that the system's sound works, then try again.",
        next: "again",
      };
    case "NotAllowedError":
    case "SecurityError":
      return {
        title: "The microphone is not allowed",
        detail: "Allow it for this page (the icon beside the address), then try again.",
        next: "again",
      };
    case "NotFoundError":
    case "OverconstrainedError":
      return { title: "No microphone found", detail: "Plug one in or switch it on, then try again.", next: "again" };
    case "NotReadableError":
    case "AbortError":
      return {
        title: "The microphone is in use",
        detail: "Another program holds it. Close that program, then try again.",
        next: "again",
      };
    default:
      return {
        title: "The sound could not be started",
        detail: `${error instanceof Error ? error.message : error} Reload the page, or try another browser.`,
        next: "reload",
      };
  }
}

/** Characters of a prompt in an address, which the server takes up to 8 KiB of. */
const LONGEST_PROMPT = 7800;

/**
 * Browsers hide why a socket was refused, so ask the server about each reason there is. Null: it cannot be reached now.
 * @param {import("./api.js").Choice} choice
 * @returns {Promise<Ending | null>}
 */
export async function refusal(choice) {
  try {
    const session = await getSession();
    if (session.protected && !session.authenticated) {
      return { title: "You are no longer logged in", detail: "Enter the password again to go on.", next: "login" };
    }
    const [{ personas, custom }, { voices }] = await Promise.all([getPersonas(), getVoices()]);
    if (choice.persona ? !personas.some(({ id }) => id === choice.persona) : !custom) {
      return { title: "This persona is no longer offered", detail: "Choose another one.", next: "choose" };
    }
    if (encodeURIComponent(choice.prompt).length > LONGEST_PROMPT) {
      const detail = "Letters beyond the English alphabet take up to nine times the room of others. Write it shorter.";
      return { title: "Your prompt is too long", detail, next: "choose" };
    }
    if (choice.voice && !voices.includes(choice.voice)) {
      return { title: "This voice is no longer offered", detail: "Choose another one.", next: "choose" };
    }
    return REFUSED;
  } catch (error) {
    return error instanceof ApiError && error.status === 401 ? REFUSED : null;
  }
}

