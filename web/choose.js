/** Choosing: personas as cards, the voice, an own prompt where it is allowed, and sampling. */

import { avatar } from "./avatar.js";
import { button, element, make } from "./dom.js";

/**
 * @typedef {import("./api.js").Choice} Choice
 * @typedef {import("./api.js").Persona} Persona
 * @typedef {import("./api.js").PersonaList} PersonaList
 */

/** From this many personas on there is a search field. */
const MANY = 7;
/** The card for a prompt of the caller's own; no persona file can have this id. */
const CUSTOM = "";
const SAMPLING = ["seed", "temperature", "top_k", "text_temperature", "text_top_k"];

/**
 * The packaged voices' names say what they are: NATF2 is natural, female, number 2.
 * @param {string} name
 * @returns {string}
 */
export function voiceLabel(name) {
  const parts = /^(NAT|VAR)([FM])(\d+)$/.exec(name);
  if (!parts) return name;
  return `${parts[1] === "NAT" ? "Natural" : "Varied"}, ${parts[2] === "F" ? "female" : "male"} ${parts[3]} (${name})`;
}

/** The view in which a call is prepared. */
export class Chooser {
  #cards = element("cards", HTMLElement);
  #search = element("search", HTMLInputElement);
  #voice = element("voice", HTMLSelectElement);
  #prompt = element("prompt", HTMLTextAreaElement);
  #start = button("start");
  /** @type {Persona[]} */
  #personas = [];
  #limit = 0;

  /** @param {(choice: Choice, name: string) => void} start the caller wants to talk */
  constructor(start) {
    const form = element("choose-form", HTMLFormElement);
    form.onsubmit = (event) => {
      event.preventDefault();
      if (!this.#start.disabled) start(this.choice, this.name);
    };
    this.#cards.onchange = () => this.#chosen();
    this.#search.oninput = () => this.#filter();
    // Enter in the search takes the first match; it does not start a call with someone out of sight.
    this.#search.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const first = this.#cards.querySelector("label:not([hidden]) input");
      if (first instanceof HTMLInputElement) {
        first.checked = true;
        first.focus();
        this.#chosen();
      }
    };
    this.#prompt.oninput = () => this.#count();
    this.#explain(form);
  }

  /** Say what is wrong with a value in a part of the form that may be folded. @param {HTMLFormElement} form */
  #explain(form) {
    const advanced = element("advanced", HTMLDetailsElement);
    const error = element("advanced-error", HTMLElement);
    const forget = () => {
      error.textContent = "";
      for (const field of advanced.querySelectorAll("input")) field.removeAttribute("aria-invalid");
    };
    form.addEventListener(
      "invalid",
      (event) => {
        const field = event.target;
        if (!(field instanceof HTMLInputElement) || !advanced.contains(field)) return;
        event.preventDefault(); // the browser's own words would be shown by some, and by some not where it was folded
        advanced.open = true;
        field.ariaInvalid = "true";
        if (error.textContent) return;
        error.textContent = `${field.labels?.[0]?.textContent}: ${field.title}.`;
        field.focus();
      },
      { capture: true },
    );
    advanced.oninput = forget;
    button("start").addEventListener("click", forget);
  }

  /** The chosen persona's id, "" for the caller's own prompt, null before anything is there. */
  get persona() {
    const checked = this.#cards.querySelector("input:checked");
    return checked instanceof HTMLInputElement ? checked.value : null;
  }

  get name() {
    return this.#personas.find(({ id }) => id === this.persona)?.name ?? "Your own persona";
  }

  /** @returns {Choice} */
  get choice() {
    /** @type {Record<string, string>} */
    const sampling = {};
    for (const name of SAMPLING) {
      const { value } = element(name, HTMLInputElement);
      if (value !== "") sampling[name] = value;
    }
    const persona = this.persona ?? CUSTOM;
    return { persona, voice: this.#voice.value, prompt: persona === CUSTOM ? this.#prompt.value.trim() : "", sampling };
  }

  /**
   * Fill the view.
   * @param {PersonaList} list
   * @param {string[]} voices
   * @param {(string | null)[]} wanted ids, the first that is offered is chosen
   */
  show({ personas, custom, max_prompt_chars, default: first }, voices, wanted) {
    this.#personas = personas;
    this.#limit = max_prompt_chars;
    this.#prompt.maxLength = max_prompt_chars;
    const cards = personas.map((persona) => this.#card(persona.id, persona.name, persona.description, voiceLabel(persona.voice)));
    if (custom) cards.push(this.#card(CUSTOM, "Your own", "Describe in your own words who should answer.", "Any voice"));
    this.#cards.replaceChildren(...cards);
    this.#cards.ariaBusy = "false";
    this.#search.classList.toggle("away", personas.length < MANY);
    this.#voice.replaceChildren(new Option("", ""), ...voices.map((name) => new Option(voiceLabel(name), name)));
    const inputs = [...this.#cards.querySelectorAll("input")];
    for (const id of [...wanted, first, personas[0]?.id ?? CUSTOM]) {
      const input = inputs.find(({ value }) => value === id);
      if (id === null || !input) continue;
      input.checked = true;
      break;
    }
    this.#start.disabled = !cards.length;
    this.#filter();
    if (cards.length) this.#chosen(false);
    else element("no-match", HTMLElement).textContent = "No persona is offered here yet. Ask whoever runs this server.";
  }

  /**
   * @param {string} id
   * @param {string} name
   * @param {string} description
   * @param {string} voice
   */
  #card(id, name, description, voice) {
    const card = make("label", "card");
    const input = make("input");
    input.type = "radio";
    input.name = "persona";
    input.value = id;
    const picture = make("div", "avatar");
    picture.append(avatar(name));
    const lines = make("div", "lines");
    lines.append(make("span", "name", name), make("span", "about", description), make("span", "voice", voice));
    for (const line of lines.children) line.setAttribute("dir", "auto");
    card.append(input, picture, lines);
    card.dataset.words = `${name} ${description} ${voice}`.toLowerCase();
    return card;
  }

  #filter() {
    const words = this.#search.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const card of this.#cards.children) {
      const match = words.every((word) => /** @type {HTMLElement} */ (card).dataset.words?.includes(word));
      card.toggleAttribute("hidden", !match);
      shown += Number(match);
    }
    const nobody = this.#cards.children.length > 0 && shown === 0;
    element("no-match", HTMLElement).textContent = nobody ? "Nobody matches. Try another word." : "";
  }

  /** @param {boolean} [remember] put it in the address, to be shared or kept */
  #chosen(remember = true) {
    const persona = this.#personas.find(({ id }) => id === this.persona);
    element("dial-avatar", HTMLElement).replaceChildren(avatar(this.name));
    element("dial-name", HTMLElement).textContent = this.name;
    element("dial-description", HTMLElement).textContent = persona?.description ?? "Answers as you describe it.";
    element("custom", HTMLElement).hidden = Boolean(persona);
    this.#prompt.required = !persona;
    this.#count();
    const [own] = this.#voice.options;
    own.textContent = persona ? `Its own (${persona.voice})` : "The server's choice";
    if (!remember) return;
    this.#voice.value = "";
    const address = new URL(location.href);
    if (persona) address.searchParams.set("persona", persona.id);
    else address.searchParams.delete("persona");
    history.replaceState(null, "", address);
  }

  #count() {
    element("prompt-count", HTMLElement).textContent = `${this.#prompt.value.length} of ${this.#limit} characters`;
  }
}
