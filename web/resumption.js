/** What it takes to go on in the same conversation over another connection. */

/** The server's token for it, and how much of the conversation has come. */
export class Resumption {
  #token = "";
  #session = "";
  #words = 0;
  /** Whether the last handshake went on with the conversation before. */
  resumed = false;

  /** Whether there is a conversation to go on with. */
  get possible() {
    return this.#token !== "";
  }

  /**
   * The server has shaken hands.
   * @param {{ session: string, resume?: string }} ready
   */
  ready({ session, resume = "" }) {
    this.resumed = session === this.#session;
    if (!this.resumed) this.#words = 0;
    this.#session = session;
    this.#token = resume;
  }

  /** A piece of the agent's words has come. */
  heard() {
    this.#words += 1;
  }

  /** It is too late: the next call begins anew. */
  giveUp() {
    this.#token = "";
  }

  /**
   * The address of a socket that goes on, or begins, as it must.
   * @param {string} url of a new call
   */
  address(url) {
    if (!this.#token) return url;
    const address = new URL(url);
    address.searchParams.set("resume", this.#token);
    address.searchParams.set("words", String(this.#words));
    return address.href;
  }
}
