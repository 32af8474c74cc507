/** Choosing: personas as cards, the voice, an own prompt where it is allowed, and sampling. */

import { avatar } from "./avatar.js";
import { button, element, make, starterLine } from "./dom.js";
import { HearButton } from "./hearbutton.js";

/**
 * @typedef {{ choice: Choice, name: string, starters: string[] }} Callee whom to call, and how
 * @typedef {import("./api.js").Choice} Choice
 * @typedef {import("./api.js").Persona} Persona
 * @typedef {import("./api.js").PersonaList} PersonaList
 */

/** From this many personas on there is a search field. */
const MANY = 7;
/** The card for a prompt of the caller's own; no persona file can have this id. */
const CUSTOM = "";
/** @type {Omit<Persona, "voice">} */
const OWN = {
  id: CUSTOM,
  name: "Your own",
  description: "Describe in your own words who should answer.",
  group: "",
  starters: [],
  emoji: "",
  image: null,
};
const SAMPLING = ["seed", "temperature", "top_k", "text_temperature", "text_top_k"];

/** The heading of those without a group, where others have one. */
const UNGROUPED = "Others";

/**
 * Cards under the headings of their groups, each group where its first one is; without any group as they come.
 * @param {HTMLElement[]} cards
 * @returns {HTMLElement[]}
 */
function grouped(cards) {
  const groups = [...new Set(cards.map(({ dataset }) => dataset.group ?? ""))].filter(Boolean);
  if (!groups.length) return cards;
  return [...groups, ""].flatMap((group) => {
    const members = cards.filter(({ dataset }) => (dataset.group ?? "") === group);
    const heading = make("h2", "group", group || UNGROUPED);
    heading.dir = "auto";
    return members.length ? [heading, ...members] : [];
  });
}

/** The view in which a call is prepared. */
export class Chooser {
  #cards = element("cards", HTMLElement);
  #search = element("search", HTMLInputElement);
  #voice = element("voice", HTMLSelectElement);
  #prompt = element("prompt", HTMLTextAreaElement);
  #start = button("start");
  #hear;
  /** @type {Persona[]} */
  #personas = [];
  /** @type {Record<string, string>} */
  #labels = {};
  #limit = 0;

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {(callee: Callee) => void} start the caller wants to talk
   */
  constructor(settings, start) {
    const form = element("choose-form", HTMLFormElement);
    this.#hear = new HearButton(settings, () => this.#voiceName);
    form.onsubmit = (event) => {
      event.preventDefault();
      if (this.#start.disabled) return;
      this.#hear.stop();
      start({ choice: this.choice, name: this.name, starters: this.#chosenPersona?.starters ?? [] });
    };
    this.#voice.onchange = () => this.#voiceChosen();
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

  get #chosenPersona() {
    return this.#personas.find(({ id }) => id === this.persona);
  }

  get name() {
    return this.#chosenPersona?.name ?? "Your own persona";
  }

  /** The voice that will be heard; "" when that is for the server to choose. */
  get #voiceName() {
    return this.#voice.value || (this.#chosenPersona?.voice ?? "");
  }

  /** What people call a voice. @param {string} name */
  #label(name) {
    return this.#labels[name] ?? name;
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
   * @param {import("./api.js").VoiceList} voices
   * @param {(string | null)[]} wanted ids, the first that is offered is chosen
   */
  show({ personas, custom, max_prompt_chars, default: first }, { voices, labels, samples }, wanted) {
    this.#personas = personas;
    this.#labels = labels;
    this.#hear.offered = samples;
    this.#limit = max_prompt_chars;
    this.#prompt.maxLength = max_prompt_chars;
    const cards = personas.map((persona) => this.#card(persona, this.#label(persona.voice)));
    if (custom) cards.push(this.#card(OWN, "Any voice"));
    this.#cards.replaceChildren(...grouped(cards));
    this.#cards.ariaBusy = "false";
    this.#search.classList.toggle("away", personas.length < MANY);
    this.#voice.replaceChildren(new Option("", ""), ...voices.map((name) => new Option(this.#label(name), name)));
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
   * @param {Omit<Persona, "voice">} persona
   * @param {string} voice
   */
  #card({ id, name, description, group, starters, emoji, image }, voice) {
    const card = make("label", "card");
    const input = make("input");
    input.type = "radio";
    input.name = "persona";
    input.value = id;
    const picture = make("div", "avatar");
    picture.append(avatar(name, { emoji, image }));
    const lines = make("div", "lines");
    lines.append(make("span", "name", name), make("span", "about", description), make("span", "voice", voice));
    if (starters.length) lines.append(make("span", "starters", starterLine(starters)));
    for (const line of lines.children) line.setAttribute("dir", "auto");
    card.append(input, picture, lines);
    card.dataset.words = `${name} ${description} ${voice} ${group}`.toLowerCase();
    card.dataset.group = group;
    return card;
  }

  #filter() {
    const words = this.#search.value.toLowerCase().split(/\s+/);
    let shown = 0;
    /** @type {Element | null} */
    let heading = null;
    for (const one of this.#cards.children) {
      const { words: about } = /** @type {HTMLElement} */ (one).dataset;
      const match = about !== undefined && words.every((word) => about.includes(word));
      one.toggleAttribute("hidden", !match);
      if (about === undefined) heading = one;
      else if (match) heading?.removeAttribute("hidden");
      shown += Number(match);
    }
    const nobody = this.#cards.children.length > 0 && shown === 0;
    element("no-match", HTMLElement).textContent = nobody ? "Nobody matches. Try another word." : "";
  }

  /** @param {boolean} [remember] put it in the address, to be shared or kept */
  #chosen(remember = true) {
    const persona = this.#chosenPersona;
    element("dial-avatar", HTMLElement).replaceChildren(avatar(this.name, persona ?? OWN));
    const starters = element("dial-starters", HTMLElement);
    starters.textContent = starterLine(persona?.starters ?? []);
    starters.hidden = !starters.textContent;
    element("dial-name", HTMLElement).textContent = this.name;
    element("dial-description", HTMLElement).textContent = persona?.description ?? "Answers as you describe it.";
    element("custom", HTMLElement).hidden = Boolean(persona);
    this.#prompt.required = !persona;
    this.#count();
    const [own] = this.#voice.options;
    own.textContent = persona ? `${this.#label(persona.voice)} (own)` : "The server's choice";
    if (remember) this.#voice.value = "";
    this.#voiceChosen();
    if (!remember) return;
    const address = new URL(location.href);
    if (persona) address.searchParams.set("persona", persona.id);
    else address.searchParams.delete("persona");
    history.replaceState(null, "", address);
  }

  #voiceChosen() {
    element("voice-id", HTMLElement).textContent = this.#voiceName || "chosen by the server";
    this.#hear.ready(this.#voiceName !== "");
  }

  #count() {
    element("prompt-count", HTMLElement).textContent = `${this.#prompt.value.length} of ${this.#limit} characters`;
  }
}
