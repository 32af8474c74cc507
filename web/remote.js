/** Calls that another process serves, which may be asleep: waking it, and getting in. Loaded only where it is needed. */

import { ApiError, callUrl, request } from "./api.js";
import { REFUSED, UNREACHABLE, refusal } from "./endings.js";

/** Between two questions whether it is awake; one question may itself wait until it is. */
const PAUSE_MS = 2000;
/** How long a model may take to wake up, the fetching of a machine for it included. */
const GIVE_UP_MS = 300000;

/** @type {import("./endings.js").Ending} */
const ASLEEP = {
  title: "The model does not wake up",
  detail: "All machines may be taken. Try again in a few minutes.",
  next: "again",
};

/**
 * Whether the process at this address takes calls.
 * @param {string} url `wss://...`
 * @param {AbortSignal} [signal]
 */
async function answers(url, signal) {
  const answer = await fetch(`${url.replace(/^ws/, "http")}/health`, { cache: "no-store", signal }).catch(() => null);
  return Boolean(answer?.ok);
}

/**
 * Where calls are served now; "" while the process starts.
 * @param {import("./api.js").Remote} remote
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 * @throws {ApiError} when it will not start, saying why
 */
async function ask(remote, signal) {
  if (remote.url !== null) return remote.url;
  const { url, usual_s } = await request("calls", { method: "POST", signal });
  if (usual_s) remote.wake_s = usual_s;
  return url ?? "";
}

/**
 * The address of the process, once it takes calls; "" when it does not in a few minutes, or when `signal` says to stop.
 * One that says of itself that it is starting is waited for as long as it does.
 * @param {import("./api.js").Remote} remote
 * @param {AbortSignal} [signal]
 * @throws {ApiError} when it will not start, saying why
 */
export async function wake(remote, signal) {
  for (let heard = Date.now(); Date.now() - heard < GIVE_UP_MS && !signal?.aborted; ) {
    try {
      const url = await ask(remote, signal);
      if (!url) heard = Date.now();
      else if (await answers(url, signal)) return url;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  return "";
}

/**
 * The address of a call's socket there, once it is awake; or why there is none.
 * @param {import("./api.js").Remote} remote
 * @param {import("./api.js").Choice} choice
 * @param {boolean} opus
 * @param {AbortSignal} signal
 * @param {(() => Promise<string>) | null} given gives a ticket where it is not the server that does
 * @returns {Promise<string | import("./endings.js").Ending>}
 */
export async function remoteUrl(remote, choice, opus, signal, given) {
  try {
    const url = await wake(remote, signal);
    if (!url) return ASLEEP;
    // A ticket is for one use, and soon: only now.
    const own = async () => (remote.ticket ? (await request("ticket", { method: "POST" })).ticket : "");
    const ticket = await (given ?? own)();
    return callUrl(choice, opus, url, ticket);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const known = await refusal(choice);
    if (!known) return UNREACHABLE;
    return known === REFUSED ? { title: "The model cannot be called now", detail: error.message, next: "again" } : known;
  }
}
