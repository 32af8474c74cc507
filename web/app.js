/** The page's beginning: ask the server who may come in and what is offered, then show the right view. */

import { ApiError, getPersonas, getSession, getVoices } from "./api.js";
import { CallView } from "./callview.js";
import { Chooser } from "./choose.js";
import { button, element, make, note, showView } from "./dom.js";
import { askPassword } from "./login.js";
import { loadSettings, saveSettings } from "./settings.js";
import { listenForKeys } from "./shortcuts.js";
import { SoundDialog } from "./sounddialog.js";

const settings = loadSettings();
const view = new CallView(settings, () => enter());
const chooser = new Chooser((choice, name) => {
  settings.persona = choice.persona;
  saveSettings(settings);
  view.start(choice, name);
});
new SoundDialog(settings, (changed) => view.apply(changed));

listenForKeys({
  enabled: () => settings.shortcuts,
  holding: () => settings.pushToTalk && view.running,
  talk: (down) => view.dock?.talk(down),
  keys: {
    m: () => view.dock?.toggleMute(),
    r: () => view.dock?.toggleRecord(),
    e: () => view.dock?.endByKey(),
    "/": () => document.body.dataset.view === "choose" && element("search", HTMLInputElement).focus(),
  },
});

/** Show what the server offers; ask for the password before, where it wants one. @param {boolean} [focus] */
async function enter(focus = true) {
  showView("choose", focus);
  try {
    const session = await getSession();
    describe(session);
    view.remote = session.calls ?? null;
    if (session.protected && !session.authenticated) {
      await askPassword(session.login);
      return enter();
    }
    if (session.calls?.wake === "page") wakeEarly(session.calls.url);
    const [personas, { voices }] = await Promise.all([getPersonas(), getVoices()]);
    const address = new URLSearchParams(location.search).get("persona");
    chooser.show(personas, voices, [chooser.persona, address, settings.persona || null]);
    if (address && !personas.personas.some(({ id }) => id === address)) {
      note(`There is no persona “${address.slice(0, 40)}” here. It may be gone, or the address has a slip. Choose another.`, 20);
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    element("failed-why", HTMLElement).textContent =
      error.status === 0 ? "It may be starting or your network may be down. Try again in a moment." : error.message;
    button("failed-again").onclick = () => enter();
    showView("failed");
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

/** Have the model awake by the time it is called. @param {string} url */
function wakeEarly(url) {
  import("./remote.js").then(
    ({ wake }) => wake(url),
    () => {}, // a call will say what is wrong
  );
}

enter(false);
