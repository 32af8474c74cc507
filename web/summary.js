/** What is left of a call: how long it was and who spoke, its transcript to take away, its recording to hear. */

import { button, clockTime, download, element, fileStamp, make } from "./dom.js";
import { overlaps, total } from "./turns.js";

/**
 * Where a moment of the call is in its recording, which may have been switched off and on: the next moment that is there.
 * @param {import("./turns.js").Span[]} recorded in seconds of the call
 * @param {number} seconds of the call
 */
export function placeInRecording(recorded, seconds) {
  let place = 0;
  for (const { start, end } of recorded) {
    if (seconds < end) return place + Math.max(0, seconds - start);
    place += end - start;
  }
  return place;
}

/**
 * Which moment of the call a place in the recording is.
 * @param {import("./turns.js").Span[]} recorded in seconds of the call
 * @param {number} place seconds
 */
export function momentOfCall(recorded, place) {
  for (const { start, end } of recorded) {
    if (place <= end - start) return start + place;
    place -= end - start;
  }
  return recorded.at(-1)?.end ?? 0;
}

/**
 * Let the transcript be copied and downloaded, during the call and after it.
 * @param {import("./transcript.js").Transcript} transcript
 * @param {string} name the persona's
 */
export function offerTranscript(transcript, name) {
  const copy = button("copy");
  copy.onclick = async () => {
    const said = await navigator.clipboard.writeText(transcript.text).then(
      () => "Copied",
      () => "This browser does not let the page copy. Download it instead.",
    );
    copy.ariaLabel = copy.title = said;
    copy.classList.add("done");
    setTimeout(() => {
      copy.ariaLabel = copy.title = "Copy transcript";
      copy.classList.remove("done");
    }, 2000);
  };
  const file = (/** @type {string} */ text, /** @type {string} */ type, /** @type {string} */ ending) =>
    download(new Blob([text], { type }), `${name} ${fileStamp()}.${ending}`);
  button("download-text").onclick = () => file(transcript.text, "text/plain", "txt");
  button("download-vtt").onclick = () => file(transcript.vtt, "text/vtt", "vtt");
}

/**
 * How the call went, in figures.
 * @param {import("./turns.js").Turns} turns
 * @param {number} seconds
 */
export function showFigures({ you, agent }, seconds) {
  const figures = [
    ["Duration", seconds],
    ["You spoke", total(you.spans)],
    ["Agent spoke", total(agent.spans)],
    ["Both at once", total(overlaps(you.spans, agent.spans))],
  ];
  element("figures", HTMLElement).replaceChildren(
    ...figures.map(([name, value]) => {
      const row = make("div");
      row.append(make("dt", "", String(name)), make("dd", "", clockTime(Number(value))));
      return row;
    }),
  );
}

/** The player of a call's recording, with the transcript's passages and the timeline as its places. */
export class Player {
  #audio = element("player", HTMLAudioElement);
  #link = element("download-recording", HTMLAnchorElement);
  #box = element("recording-box", HTMLElement);

  /** Nothing to play. */
  clear() {
    this.#audio.pause();
    this.#box.hidden = true;
    if (this.#link.href) URL.revokeObjectURL(this.#link.href);
    this.#link.removeAttribute("href");
    this.#audio.removeAttribute("src");
  }

  /**
   * @param {Blob} file
   * @param {string} name the persona's
   * @param {import("./turns.js").Span[]} recorded which parts of the call it holds
   * @param {import("./timeline.js").Timeline} timeline
   * @param {import("./transcript.js").Transcript} transcript
   */
  show(file, name, recorded, timeline, transcript) {
    this.#link.href = this.#audio.src = URL.createObjectURL(file);
    this.#link.download = `${name} ${fileStamp()}.${file.type === "audio/ogg" ? "ogg" : "wav"}`;
    this.#box.hidden = false;
    const audio = this.#audio;
    timeline.onseek = transcript.onseek = (seconds) => {
      audio.currentTime = placeInRecording(recorded, seconds);
      audio.play().catch(() => {}); // where the browser cannot play its own Opus, the file is still there
    };
    audio.ontimeupdate = () => timeline.at(momentOfCall(recorded, audio.currentTime));
    timeline.playable();
    transcript.playable();
  }
}
