/**
 * A button for calls on any site, as a custom element:
 *
 *   <personaplex-call persona="hotel" label="Front desk" ticket-url="/voice-ticket"></personaplex-call>
 *   <script type="module" src=".../talk.js"></script>
 *
 * It is a frame with a page of the service, which has the call to itself; the site is named in the service's
 * `server.origins`. Where the service wants to know its callers, `ticket-url` is an address of the site that answers a POST
 * with the JSON of the service's `POST /ticket`; or the property `getTicket` is a function that gives a ticket. The element
 * fires `personaplex-state` with the call's state in `detail`.
 */

const HOME = new URL(".", import.meta.url);
/** Attributes that the frame is told. */
const TOLD = ["persona", "voice", "label"];
const STYLE = new CSSStyleSheet();
STYLE.replaceSync(`
  :host { display: inline-block; inline-size: min(100%, 360px); block-size: 104px; }
  :host([hidden]) { display: none; }
  iframe { inline-size: 100%; block-size: 100%; border: 0; border-radius: 18px; }
`);

/** @param {MessageEvent} event */
const fromHome = ({ origin }) => origin === HOME.origin;

/** The element. */
class PersonaplexCall extends HTMLElement {
  static observedAttributes = [...TOLD, "ticket-url"];
  /** Gives a ticket for one call; in place of `ticket-url`. @type {(() => Promise<string>) | null} */
  getTicket = null;
  #frame = document.createElement("iframe");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [STYLE];
    this.#frame.allow = "microphone; autoplay; speaker-selection; screen-wake-lock";
    root.append(this.#frame);
  }

  connectedCallback() {
    addEventListener("message", this.#told);
    this.#load();
  }

  disconnectedCallback() {
    removeEventListener("message", this.#told);
  }

  attributeChangedCallback() {
    if (this.isConnected) this.#load();
  }

  #load() {
    const address = new URL("embed.html", HOME);
    for (const name of TOLD) if (this.hasAttribute(name)) address.searchParams.set(name, this.getAttribute(name) ?? "");
    this.#frame.title = `Call: ${this.getAttribute("label") ?? this.getAttribute("persona") ?? "PersonaPlex"}`;
    if (this.#frame.src !== address.href) this.#frame.src = address.href;
  }

  #told = (/** @type {MessageEvent} */ event) => {
    if (!fromHome(event) || event.source !== this.#frame.contentWindow) return;
    const { type, state } = Object(event.data);
    if (type === "personaplex:state") this.dispatchEvent(new CustomEvent("personaplex-state", { detail: state, bubbles: true }));
    if (type === "personaplex:ticket") this.#answer(event.ports[0]);
  };

  /** @param {MessagePort} port where the frame waits for a ticket */
  async #answer(port) {
    try {
      port.postMessage({ ticket: await this.#ticket() });
    } catch (error) {
      port.postMessage({ error: String(error) });
    }
  }

  /** A ticket, "" where none is needed. */
  async #ticket() {
    if (this.getTicket) return this.getTicket();
    const address = this.getAttribute("ticket-url");
    if (!address) return "";
    const response = await fetch(address, { method: "POST" });
    if (!response.ok) throw new Error(`${address} answered with status ${response.status}.`);
    return (await response.json()).ticket;
  }
}

if (!customElements.get("personaplex-call")) customElements.define("personaplex-call", PersonaplexCall);
