/**
 * Ogg for one Opus stream, both ways (RFC 3533, RFC 7845).
 *
 * The writer closes a page whenever it is asked to, so a 20 ms packet leaves at once; the reader gives a packet as soon
 * as its last byte is there. Muxers made for files hold pages back, which is heard as delay.
 */

const HEADER = 27;
const CONTINUED = 1;
const FIRST = 2;
const LAST = 4;
const CAPTURE = [0x4f, 0x67, 0x67, 0x53, 0]; // "OggS" and the version
const LONGEST_PACKET = 64 * 1024;

/** The checksum's table: polynomial 0x04c11db7, most significant bit first (RFC 3533, section 6). */
const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte << 24;
  for (let bit = 0; bit < 8; bit++) value = (value << 1) ^ (value & 0x80000000 ? 0x04c11db7 : 0);
  return value >>> 0;
});

/**
 * Checksum of a page whose own checksum field counts as zero.
 * @param {Uint8Array} page
 * @returns {number}
 */
function checksum(page) {
  let crc = 0;
  for (let at = 0; at < page.length; at++) {
    const byte = at >= 22 && at < 26 ? 0 : page[at];
    crc = ((crc << 8) ^ CRC[(crc >>> 24) ^ byte]) >>> 0;
  }
  return crc;
}

/** @param {Uint8Array} bytes */
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** @param {Uint8Array[]} parts */
function join(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Writes one Opus stream as Ogg pages. */
export class OggWriter {
  #serial;
  #channels;
  #preSkip;
  #sequence = 0;
  #granule = 0;

  /**
   * @param {object} stream
   * @param {number} stream.serial any number; tells this stream from an older one on the same line
   * @param {number} stream.channels 1 or 2
   * @param {number} stream.preSkip the encoder's delay in samples at 48 kHz
   */
  constructor({ serial, channels, preSkip }) {
    this.#serial = serial >>> 0;
    this.#channels = channels;
    this.#preSkip = preSkip;
    this.#granule = preSkip;
  }

  /**
   * The two header pages that every stream begins with.
   * @returns {Uint8Array<ArrayBuffer>}
   */
  headers() {
    const head = new Uint8Array(19);
    head.set(new TextEncoder().encode("OpusHead"));
    head[8] = 1;
    head[9] = this.#channels;
    view(head).setUint16(10, this.#preSkip, true);
    view(head).setUint32(12, 48000, true);
    const vendor = new TextEncoder().encode("personaplex");
    const tags = new Uint8Array(8 + 4 + vendor.length + 4);
    tags.set(new TextEncoder().encode("OpusTags"));
    view(tags).setUint32(8, vendor.length, true);
    tags.set(vendor, 12);
    return join([this.#page([head], FIRST, 0), this.#page([tags], 0, 0)]);
  }

  /**
   * One page that holds these packets.
   * @param {Uint8Array[]} packets at most 255 segments of 255 bytes together
   * @param {number} samples how many samples at 48 kHz the packets hold together
   * @param {boolean} [last] the stream ends with this page
   * @returns {Uint8Array<ArrayBuffer>}
   */
  page(packets, samples, last = false) {
    this.#granule += samples;
    return this.#page(packets, last ? LAST : 0, this.#granule);
  }

  /**
   * @param {Uint8Array[]} packets
   * @param {number} flags
   * @param {number} granule
   */
  #page(packets, flags, granule) {
    const lacing = packets.flatMap((packet) => [
      ...new Array(Math.floor(packet.length / 255)).fill(255),
      packet.length % 255,
    ]);
    if (lacing.length > 255) throw new RangeError("These packets do not fit in one Ogg page; write fewer at a time.");
    const page = join([new Uint8Array(HEADER + lacing.length), ...packets]);
    const fields = view(page);
    page.set(CAPTURE);
    page[5] = flags;
    fields.setBigUint64(6, BigInt(granule), true);
    fields.setUint32(14, this.#serial, true);
    fields.setUint32(18, this.#sequence++, true);
    page[26] = lacing.length;
    page.set(lacing, HEADER);
    fields.setUint32(22, checksum(page), true);
    return page;
  }
}

/**
 * Reads the Opus packets of one line, however the bytes are cut.
 *
 * Pages before a first page belong to an older stream and are dropped; a first page begins a new stream. A page with a
 * wrong checksum is skipped: the reader looks for the next one.
 */
export class OggReader {
  /** Channels of the stream, 0 before its header. */
  channels = 0;
  #pending = new Uint8Array(0);
  /** @type {number | null} */
  #serial = null;
  #headers = 0;
  /** @type {Uint8Array[]} */
  #partial = [];

  /**
   * Take bytes and give the audio packets that are complete with them.
   * @param {Uint8Array} bytes
   * @returns {Uint8Array[]}
   */
  append(bytes) {
    this.#pending = this.#pending.length ? join([this.#pending, bytes]) : bytes.slice();
    /** @type {Uint8Array[]} */
    const packets = [];
    let at = 0;
    for (;;) {
      at = this.#findPage(at);
      const page = this.#pageAt(at);
      if (page === null) break;
      if (checksum(page) !== view(page).getUint32(22, true)) {
        at += 1;
        continue;
      }
      packets.push(...this.#read(page));
      at += page.length;
    }
    this.#pending = this.#pending.slice(at);
    return packets;
  }

  /** Where the next page may begin, at or after `from`. @param {number} from */
  #findPage(from) {
    const bytes = this.#pending;
    for (let at = from; at < bytes.length; at++) {
      if (CAPTURE.every((letter, index) => at + index >= bytes.length || bytes[at + index] === letter)) return at;
    }
    return bytes.length;
  }

  /** The whole page at this place, or null while its end is missing. @param {number} at */
  #pageAt(at) {
    const bytes = this.#pending;
    if (at + HEADER > bytes.length) return null;
    const segments = bytes[at + 26];
    const body = at + HEADER + segments;
    if (body > bytes.length) return null;
    let end = body;
    for (let index = 0; index < segments; index++) end += bytes[at + HEADER + index];
    return end > bytes.length ? null : bytes.subarray(at, end);
  }

  /** @param {Uint8Array} page */
  #read(page) {
    const flags = page[5];
    const serial = view(page).getUint32(14, true);
    if (flags & FIRST) {
      this.#serial = serial;
      this.#headers = 0;
      this.#partial = [];
    }
    if (serial !== this.#serial) return [];
    let orphan = Boolean(flags & CONTINUED) && !this.#partial.length;
    if (!(flags & CONTINUED)) this.#partial = [];
    /** @type {Uint8Array[]} */
    const packets = [];
    let at = HEADER + page[26];
    for (const length of page.subarray(HEADER, HEADER + page[26])) {
      this.#partial.push(page.slice(at, at + length));
      at += length;
      if (length === 255) continue;
      const packet = join(this.#partial);
      this.#partial = [];
      if (!orphan && this.#isAudio(packet)) packets.push(packet);
      orphan = false;
    }
    if (orphan || this.#partial.length * 255 > LONGEST_PACKET) this.#partial = [];
    return packets;
  }

  /** The first two packets of a stream are its headers. @param {Uint8Array} packet */
  #isAudio(packet) {
    this.#headers += 1;
    if (this.#headers === 1) this.channels = packet[9] ?? 0;
    return this.#headers > 2 && packet.length > 0;
  }
}
