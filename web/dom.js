/** Small help with the page's elements. */

/**
 * The element of this id, checked to be what it is taken for.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return found;
}

/** @param {string} id */
export const button = (id) => element(id, HTMLButtonElement);

/**
 * A new element with a class and a text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Show one view and put the focus on its heading, where a screen reader goes on. @param {string} id @param {boolean} [focus] */
export function showView(id, focus = true) {
  for (const view of document.querySelectorAll("main > section")) view.toggleAttribute("hidden", view.id !== id);
  document.body.dataset.view = id;
  if (focus) document.querySelector(`#${id} h1`)?.closest("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** Close a dialog at a click beside it. @param {HTMLDialogElement} dialog */
export function closeByBackdrop(dialog) {
  dialog.addEventListener("click", ({ target, clientX, clientY }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const inside = clientX >= left && clientX <= right && clientY >= top && clientY <= bottom;
    if (target === dialog && !inside) dialog.close();
  });
}

/**
 * Give a file to the caller.
 * @param {Blob} file
 * @param {string} name
 */
export function download(file, name) {
  const link = make("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** Date and time for a file's name, local. */
export function fileStamp() {
  const now = new Date();
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60000);
  return local.toISOString().slice(0, 16).replace("T", "-").replace(":", "");
}

/**
 * @typedef {object} Note a sentence over the page
 * @property {(text: string, aside?: string) => void} say another one; `aside` is shown, and not read aloud
 * @property {() => void} remove
 */

/**
 * A sentence that comes over the page and goes by itself, or at a click.
 * @param {string} text
 * @param {number} [seconds]
 * @returns {Note}
 */
export function note(text, seconds = 10) {
  const notes = element("notes", HTMLElement);
  // The same sentence again takes the place of the first.
  for (const one of notes.children) if (one.firstChild?.textContent === text) one.remove();
  const one = make("p", "note");
  const [words, aside, close] = [make("span"), make("b"), make("button", "icon")];
  aside.ariaHidden = "true";
  close.type = "button";
  close.ariaLabel = close.title = "Dismiss";
  close.append("×");
  const remove = () => one.remove();
  close.onclick = remove;
  const say = (/** @type {string} */ sentence, beside = "") => {
    if (words.textContent !== sentence) words.textContent = sentence;
    if (aside.textContent !== beside) aside.textContent = beside;
  };
  say(text);
  one.append(words, aside, close);
  notes.append(one);
  setTimeout(remove, seconds * 1000);
  return { say, remove };
}

/** Have a screen reader say what has changed. @param {string} text */
export function announce(text) {
  element("status", HTMLElement).textContent = text;
}

/** What a caller may begin with, in one line; "" when there is nothing. @param {string[]} starters */
export function starterLine(starters) {
  const quoted = starters.map((one) => `“${one}”`);
  const last = quoted.pop();
  return last ? `You could say ${quoted.length ? `${quoted.join(", ")} or ${last}` : last}` : "";
}

/** @param {number} seconds */
export function clockTime(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
