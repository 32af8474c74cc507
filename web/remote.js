/** Calls that another process serves, which may be asleep: waking it, and getting in. Loaded only where it is needed. */

import { ApiError, callUrl, request } from "./api.js";
import { UNREACHABLE, refusal } from "./endings.js";

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
 * Whether the process answers; false when it does not in a few minutes, or when `signal` says to stop.
 * @param {string} url the process's own, `wss://...`
 * @param {AbortSignal} [signal]
 */
export async function wake(url, signal) {
  const health = `${url.replace(/^ws/, "http")}/health`;
  for (const end = Date.now() + GIVE_UP_MS; Date.now() < end && !signal?.aborted; ) {
    const answer = await fetch(health, { cache: "no-store", signal }).catch(() => null);
    if (answer?.ok) return true;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  return false;
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
  if (!(await wake(remote.url, signal))) return ASLEEP;
  try {
    // A ticket is for one use, and soon: only now.
    const own = async () => (remote.ticket ? (await request("ticket", { method: "POST" })).ticket : "");
    const ticket = await (given ?? own)();
    return callUrl(choice, opus, remote.url, ticket);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return (await refusal(choice)) ?? UNREACHABLE;
  }
}
