/** How this page uses the browser's own Opus, and whether it has one. */

/** Samples a second of everything the worklets give, and of Opus. */
export const RATE = 48000;
/** Length of a packet, in microseconds. */
export const PACKET_US = 20000;

/** @type {AudioDecoderConfig} */
export const opusDecoding = { codec: "opus", sampleRate: RATE, numberOfChannels: 1 };

/**
 * How speech is coded: one packet out for each 20 ms in.
 * @param {number} channels
 * @returns {AudioEncoderConfig}
 */
export function opus(channels) {
  return {
    codec: "opus",
    sampleRate: RATE,
    numberOfChannels: channels,
    bitrate: 48000 * channels,
    opus: { frameDuration: PACKET_US },
  };
}

/**
 * Whether this browser codes and decodes Opus as the line needs it.
 * @returns {Promise<boolean>}
 */
export async function opusSupported() {
  if (!("AudioEncoder" in globalThis && "AudioDecoder" in globalThis)) return false;
  try {
    const [encoder, decoder] = await Promise.all([
      AudioEncoder.isConfigSupported(opus(1)),
      AudioDecoder.isConfigSupported(opusDecoding),
    ]);
    return Boolean(encoder.supported && decoder.supported);
  } catch {
    return false;
  }
}
