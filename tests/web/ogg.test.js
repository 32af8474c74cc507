/** Ogg: what the writer writes the reader reads, however it is cut, joined, damaged or begun anew. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { OggReader, OggWriter } from "../../web/ogg.js";

const stream = (serial = 1) => new OggWriter({ serial, channels: 1, preSkip: 312 });
const packet = (length, fill) => new Uint8Array(length).fill(fill);
const bytes = (parts) => Uint8Array.from(parts.flatMap((part) => [...part]));
const LENGTHS = [1, 2, 100, 254, 255, 256, 510, 1275];

test("packets of every length come back, in pieces of every size", () => {
  const writer = stream();
  const packets = LENGTHS.map((length, index) => packet(length, index + 1));
  const whole = bytes([writer.headers(), ...packets.map((one) => writer.page([one], 960))]);
  for (const size of [1, 7, 64, whole.length]) {
    const reader = new OggReader();
    const read = [];
    for (let at = 0; at < whole.length; at += size) read.push(...reader.append(whole.subarray(at, at + size)));
    assert.deepEqual(read, packets);
    assert.equal(reader.channels, 1);
  }
});

test("a packet is there with its page's last byte", () => {
  const writer = stream();
  const reader = new OggReader();
  reader.append(writer.headers());
  const page = writer.page([packet(80, 5)], 960);
  assert.equal(reader.append(page.subarray(0, -1)).length, 0);
  assert.equal(reader.append(page.subarray(-1)).length, 1);
});

test("several packets share a page; one that ends on a full segment too", () => {
  const writer = stream();
  const packets = [packet(255, 1), packet(3, 2), packet(510, 3)];
  const reader = new OggReader();
  assert.deepEqual(reader.append(bytes([writer.headers(), writer.page(packets, 2880)])), packets);
});

test("too much for a page is refused", () => {
  assert.throws(() => stream().page([packet(255 * 255, 1)], 960), /do not fit/);
});

test("a packet spread over two pages is joined", () => {
  // The writer never does this; other muxers do. Two pages by hand: 255 bytes, then the rest with the continued flag.
  const writer = stream();
  const reader = new OggReader();
  reader.append(writer.headers());
  const first = writer.page([packet(255, 9)], 0);
  const whole = bytes([first.subarray(0, 26), [1, 255], first.subarray(29)]);
  const second = writer.page([packet(45, 9)], 960);
  second[5] = 1;
  assert.deepEqual(reader.append(bytes([sealed(whole), sealed(second)])), [packet(300, 9)]);
});

/** The page with its right checksum, computed bit by bit, as a second opinion. */
function sealed(page) {
  page.fill(0, 22, 26);
  let crc = 0;
  for (const byte of page) {
    crc ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  }
  new DataView(page.buffer).setUint32(22, crc >>> 0, true);
  return page;
}

test("garbage between pages and a damaged page cost only themselves", () => {
  const writer = stream();
  const pages = [1, 2, 3].map((fill) => writer.page([packet(50, fill)], 960));
  pages[1][40] ^= 1;
  const noise = new TextEncoder().encode("OggOggSOg noise OggS");
  const reader = new OggReader();
  const read = reader.append(bytes([noise, stream().headers(), noise, pages[0], pages[1], noise, pages[2]]));
  read.push(...reader.append(stream().page([packet(50, 4)], 960)));
  assert.deepEqual(read.map((one) => one[0]), [1, 3, 4]);
});

test("pages of an older stream are dropped; a new first page begins anew", () => {
  const old = stream(1);
  old.headers();
  const fresh = stream(2);
  const reader = new OggReader();
  const late = old.page([packet(9, 1)], 960);
  const read = reader.append(bytes([late, fresh.headers(), fresh.page([packet(9, 2)], 960), old.page([packet(9, 3)], 960)]));
  assert.deepEqual(read, [packet(9, 2)]);
  const again = stream(3);
  assert.deepEqual(reader.append(bytes([again.headers(), again.page([packet(9, 4)], 960)])), [packet(9, 4)]);
});

test("random bytes never upset the reader", () => {
  let seed = 5;
  const chance = () => (seed = (seed * 1664525 + 1013904223) >>> 0) / 2 ** 32;
  const reader = new OggReader();
  for (let round = 0; round < 200; round++) {
    const noise = Uint8Array.from({ length: 300 }, () => chance() * 256);
    noise.set(new TextEncoder().encode("OggS"), Math.floor(chance() * 290));
    reader.append(noise);
  }
  const writer = stream(8);
  const read = [];
  // A false page in the noise may claim up to 64 KiB; after that the reader is in step again.
  for (let round = 0; round < 900; round++) read.push(...reader.append(bytes([writer.headers(), writer.page([packet(20, 6)], 960)])));
  assert.ok(read.length > 0);
  assert.ok(read.every((one) => one.length === 20 && one[0] === 6));
});
