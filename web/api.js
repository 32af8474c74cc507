/** The server's HTTP side, as the page uses it. Paths are relative, so the page works below any prefix. */

/**
 * @typedef {{ name: string, notice: string }} EngineInfo
 * @typedef {{ kind: "password" | "redirect", path: string, label: string }} Login
 * @typedef {{ authenticated: boolean, identity: string | null, protected: boolean, logins: Login[], engine: EngineInfo, notices: string[], calls?: Remote }} SessionInfo
 * @typedef {object} Persona
 * @property {string} id
 * @property {string} name
 * @property {string} description
 * @property {string} voice
 * @property {string} group the heading under which it stands, or ""
 * @property {string[]} starters sentences that a caller may begin with
 * @property {string} emoji
 * @property {string | null} image the address of its picture
 *
 * @typedef {{ voices: string[], labels: Record<string, string>, samples: boolean }} VoiceList `samples`: they can be heard
 * @typedef {{ personas: Persona[], custom: boolean, max_prompt_chars: number, default: string | null }} PersonaList
 *
 * @typedef {object} Remote the process that serves the calls, where it is another one
 * @property {string | null} url `wss://...`; null: `POST calls` says it, and wakes the process
 * @property {boolean} ticket whether it wants one
 * @property {"call" | "page"} wake whether it is woken by a call, or as soon as the page is open
 * @property {number} wake_s how long that usually takes
 *
 * @typedef {object} Choice what the caller picked
 * @property {string} persona its id, or "" for the caller's own prompt
 * @property {string} voice "" for the persona's own
 * @property {string} prompt only with no persona
 * @property {Record<string, string>} sampling `seed`, `temperature`, `top_k`, `text_temperature`, `text_top_k`; absent = the persona's
 */

/** The server answered with an error, or not at all. */
export class ApiError extends Error {
  /**
   * @param {string} message for people
   * @param {number} status HTTP's, 0 when the server was not reached
   * @param {number} [retryAfter] seconds
   */
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>} the JSON, null when there is none
 */
export async function request(path, options) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new ApiError("The server cannot be reached.", 0);
  }
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  throw new ApiError(body?.error ?? `The server answered with status ${response.status}.`, response.status, retryAfter);
}

/** @returns {Promise<SessionInfo>} */
export const getSession = () => request("session");
/** @returns {Promise<PersonaList>} */
export const getPersonas = () => request("personas");
/** @returns {Promise<VoiceList>} */
export const getVoices = () => request("voices");

/**
 * Log in; the answer sets a cookie.
 * @param {string} path where the session information says to
 * @param {string} password
 */
export const login = (path, password) => request(path, { method: "POST", body: new URLSearchParams({ password }) });

/**
 * The address of a call's socket.
 * @param {Choice} choice
 * @param {boolean} opus
 * @param {string} [base] where the calls are served, when not here
 * @param {string} [ticket]
 * @returns {string}
 */
export function callUrl(choice, opus, base, ticket) {
  const url = new URL("ws/chat", base ? `${base}/` : location.href.split(/[?#]/)[0]);
  url.protocol = url.protocol.replace("http", "ws");
  const { persona, voice, prompt, sampling } = choice;
  const parameters = { ...(persona ? { persona } : prompt && { prompt }), ...(voice && { voice }), ...sampling, ...(ticket && { ticket }) };
  url.search = new URLSearchParams({ ...parameters, audio: opus ? "opus" : "pcm" }).toString();
  return url.href;
}
