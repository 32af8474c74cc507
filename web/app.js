/** The page's beginning: ask the server who may come in and what is offered, then show the right view. */

import { ApiError, getPersonas, getSession, getVoices } from "./api.js";
import { Chooser } from "./choose.js";
import { button, element, make, note, showView } from "./dom.js";
import { logIn } from "./login.js";
import { loadSettings, saveSettings } from "./settings.js";
import { listenForKeys } from "./shortcuts.js";
import { SoundDialog } from "./sounddialog.js";

const settings = loadSettings();
/** The view of calls, which comes while the caller chooses. @type {import("./callview.js").CallView | null} */
let view = null;
/** Where calls are served, when not here. @type {import("./api.js").Remote | null} */
let remote = null;
/** What is said of an address that names nobody. @type {import("./dom.js").Note | null} */
let nobody = null;
const chooser = new Chooser(settings, async (callee) => {
  nobody?.remove();
  settings.persona = callee.choice.persona;
  saveSettings(settings);
  const loaded = await loadView();
  if (loaded && !loaded.running) loaded.start(callee);
});
const sound = new SoundDialog(settings, (changed) => view?.apply(changed));

/** Pause after which the view of calls is fetched, so that choosing comes first. */
const PREFETCH_MS = 1000;

/** The view of calls; null when the server does not give it. */
async function loadView() {
  try {
    const { CallView } = await import("./callview.js");
    view ??= new CallView(settings, () => enter());
    view.remote = remote;
  } catch {
    // A browser does not ask again for a module that did not come.
    fail("It may be starting or your network may be down. Try again in a moment.", () => location.reload());
  }
  return view;
}

/**
 * Show that there is nothing to show.
 * @param {string} why
 * @param {() => void} again
 */
function fail(why, again) {
  element("failed-why", HTMLElement).textContent = why;
  button("failed-again").onclick = again;
  showView("failed");
}

listenForKeys({
  enabled: () => settings.shortcuts,
  holding: () => settings.pushToTalk && Boolean(view?.running),
  talk: (down) => view?.dock?.talk(down),
  keys: {
    m: () => view?.dock?.toggleMute(),
    r: () => view?.dock?.toggleRecord(),
    e: () => view?.dock?.endByKey(),
    "/": () => document.body.dataset.view === "choose" && element("search", HTMLInputElement).focus(),
  },
});

/** Show what the server offers; ask for the password before, where it wants one. @param {boolean} [focus] */
async function enter(focus = true) {
  showView("choose", focus);
  sound.showFirst();
  try {
    const session = await getSession();
    describe(session);
    remote = session.calls ?? null;
    if (session.protected && !session.authenticated) {
      await logIn(session.logins);
      return enter();
    }
    if (session.calls?.wake === "page") wakeEarly(session.calls);
    const [personas, voices] = await Promise.all([getPersonas(), getVoices()]);
    const address = new URLSearchParams(location.search).get("persona");
    chooser.show(personas, voices, [chooser.persona, address, settings.persona || null]);
    if (address && !personas.personas.some(({ id }) => id === address)) {
      nobody = note(`There is no persona “${address.slice(0, 40)}” here. Choose another one.`, 20);
    }
    setTimeout(() => import("./callview.js").catch(() => {}), PREFETCH_MS); // what is wrong is said at a call
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const unreachable = "It may be starting or your network may be down. Try again in a moment.";
    fail(error.status === 0 ? unreachable : error.message, () => enter());
  }
}

/** Say what the caller talks to and must know before. @param {import("./api.js").SessionInfo} session */
function describe({ engine, notices }) {
  element("engine", HTMLElement).textContent = `Model: ${engine.name}`;
  element("notice", HTMLElement).textContent = engine.notice;
  const banner = element("consent", HTMLElement);
  banner.replaceChildren(...notices.map((text) => make("p", "", text)));
  for (const line of banner.children) line.setAttribute("dir", "auto");
  banner.hidden = !notices.length;
}

/** Have the model awake by the time it is called. @param {import("./api.js").Remote} calls */
function wakeEarly(calls) {
  import("./remote.js")
    .then(({ wake }) => wake(calls))
    .catch(() => {}); // a call will say what is wrong
}

enter(false);
