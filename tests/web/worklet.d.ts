/** What an AudioWorklet's and a worker's global scope add to the page's; TypeScript's DOM library leaves them out. */

declare class AudioWorkletProcessor {
  readonly port: MessagePort;
  constructor(options?: AudioWorkletNodeOptions);
}
declare function registerProcessor(name: string, processor: new (options: never) => AudioWorkletProcessor): void;
/** Sample frames since the context began. */
declare const currentFrame: number;
/** Samples a second of the context. */
declare const sampleRate: number;
