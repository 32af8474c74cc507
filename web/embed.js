/** A call in a frame of another site, put there by `talk.js`: a ball that begins it, whose turn it is, mute and end. */

import { ApiError, getPersonas, getSession } from "./api.js";
import { avatar, hue } from "./avatar.js";
import { Call } from "./call.js";
import { HELD, TURNS, WORDS, queuedAt } from "./callwords.js";
import { button, element } from "./dom.js";
import { loadSettings } from "./settings.js";
import { Shape } from "./shape.js";
import { Turns } from "./turns.js";

/** How long the site may take to give a ticket. */
const TICKET_MS = 15000;

const query = new URLSearchParams(location.search);
const persona = query.get("persona") ?? "";
/** @type {import("./api.js").Choice} */
const choice = { persona, voice: query.get("voice") ?? "", prompt: "", sampling: {} };
const framed = parent !== window;
const settings = loadSettings();
const says = element("says", HTMLElement);
const canvas = element("voices", HTMLCanvasElement);

let name = query.get("label") ?? "";
/** @type {import("./api.js").Remote | null} */
let remote = null;
/** @type {Shape | null} */
let shape = null;
/** @type {Call | null} */
let call = null;
let muted = false;

/** What the site is told. Nothing of it is secret: who may frame this page is named in the settings. @param {string} state */
function tell(state) {
  if (framed) parent.postMessage({ type: "personaplex:state", state }, "*");
}

/** A ticket for one call, from the site; "" where it has none to give. @returns {Promise<string>} */
function askTicket() {
  return new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => (data.error ? reject(new ApiError(data.error, 0)) : resolve(data.ticket ?? ""));
    setTimeout(() => reject(new ApiError("The site gave no ticket.", 0)), TICKET_MS);
    parent.postMessage({ type: "personaplex:ticket" }, "*", [port2]);
  });
}

/** @param {boolean} on */
function show(on) {
  canvas.hidden = !on;
  button("ball").hidden = on;
  button("mute").hidden = button("end").hidden = !on;
}

/** @param {boolean} on */
function mute(on) {
  muted = on;
  call?.sound.setMuted(on);
  if (shape) shape.muted = on;
  button("mute").ariaPressed = String(on);
  button("mute").querySelector("use")?.setAttribute("href", on ? "#i-mic-off" : "#i-mic");
}

function start() {
  const turns = new Turns();
  const begun = performance.now();
  let turn = "";
  let held = "";
  shape ??= new Shape();
  const painted = shape;
  /** @type {import("./call.js").CallListener} */
  const listener = {
    state: (state, place) => {
      painted.waiting = state !== "live";
      says.textContent = `${state === "queued" ? queuedAt(place) : WORDS[state][0]}.`;
      turn = "";
      tell(state);
    },
    levels: (you, agent) => {
      painted.add(you, agent);
      if (call?.state !== "live" || held) return;
      const now = turns.add(you, agent, muted, (performance.now() - begun) / 1000);
      if (now !== turn) says.textContent = TURNS[(turn = now)][0];
    },
    held: (what) => {
      held = what;
      if (what) says.textContent = `${HELD[what][0]}. Click here to go on.`;
      else turn = "";
    },
    warning: (_limit, seconds) => (says.textContent = `The call ends in ${Math.round(seconds)} seconds.`),
    microphoneLost: () => (says.textContent = "Your microphone is gone."),
    ended: ({ title, detail, next }) => {
      painted.stop();
      show(false);
      // Whoever is framed has no password to enter, and nobody else to choose.
      says.textContent = next === "login" || next === "choose" ? `${title}.` : `${title}. ${detail}`;
      button("ball").focus({ preventScroll: true });
    },
    ready: () => {},
    text: () => {},
    callerText: () => {},
    echo: () => {},
    stats: () => {},
    recording: () => {},
  };
  show(true);
  call = new Call(choice, element("agent-audio", HTMLAudioElement), listener, remote, framed ? askTicket : null);
  mute(false);
  painted.start(name);
  call.start(settings);
  button("end").focus({ preventScroll: true });
}

/** Who is called, as far as strangers may know. */
async function introduce() {
  const session = await getSession();
  remote = session.calls ?? null;
  if (session.protected && !session.authenticated) return null;
  const { personas } = await getPersonas();
  return personas.find(({ id }) => id === persona) ?? (persona ? null : personas[0]);
}

button("ball").onclick = start;
button("end").onclick = () => call?.hangUp();
button("mute").onclick = () => mute(!muted);
addEventListener("click", () => call?.sound.wake(), { capture: true });
addEventListener("pagehide", () => call?.hangUp());

const found = await introduce().catch(() => null);
name ||= found?.name ?? persona;
const { style } = document.documentElement;
style.setProperty("--agent-hue", String(hue(name)));
style.setProperty("--you-hue", Math.abs(hue(name) - 170) < 60 ? "32" : "170");
element("name", HTMLElement).textContent = name;
element("title", HTMLElement).textContent = `Call: ${name}`;
element("picture", HTMLElement).append(avatar(name, found ?? {}));
const ball = button("ball");
ball.ariaLabel = ball.title = `Talk to ${name || "the agent"}`;
says.textContent = "Click to talk.";
ball.disabled = false;
