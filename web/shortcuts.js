/** Single keys, where no field wants them. They can be switched off in the sound settings. */

import { button, closeByBackdrop, element } from "./dom.js";

/**
 * @typedef {object} Actions
 * @property {() => boolean} enabled whether single keys work
 * @property {() => boolean} holding whether the space bar is for talking now
 * @property {(down: boolean) => void} talk
 * @property {Record<string, () => void>} keys by lower-case key
 */

/** @param {EventTarget | null} target */
function typing(target) {
  if (!(target instanceof Element)) return false;
  const field = target.closest("input, textarea, select");
  return field !== null && !(field instanceof HTMLInputElement && ["radio", "checkbox", "range"].includes(field.type));
}

/** @param {Actions} actions */
export function listenForKeys(actions) {
  const keys = element("keys", HTMLDialogElement);
  button("open-keys").onclick = () => keys.showModal();
  closeByBackdrop(keys);
  const space = (/** @type {KeyboardEvent} */ event) =>
    event.code === "Space" && actions.holding() && !typing(event.target) && !document.querySelector("dialog[open]");
  let held = false;
  const release = () => {
    if (held) actions.talk((held = false));
  };
  addEventListener("keydown", (event) => {
    if (space(event)) {
      event.preventDefault();
      if (!held) actions.talk((held = true));
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
    if (!actions.enabled() || document.querySelector("dialog[open]")) return;
    const action = event.key === "?" ? () => keys.showModal() : actions.keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
  addEventListener("keyup", (event) => {
    if (event.code !== "Space" || !held) return;
    event.preventDefault();
    release();
  });
  // A key let go in another window is never seen here: the microphone must not stay open.
  addEventListener("blur", release);
}
