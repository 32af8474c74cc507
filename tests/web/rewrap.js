/**
 * Read an Ogg/Opus stream from standard input with the page's reader, in pieces of the given size, and write it with the
 * page's writer, one packet a page. For test_web.py.
 */
import { readFileSync } from "node:fs";
import { OggReader, OggWriter } from "../../web/ogg.js";

const [size, samples, preSkip] = process.argv.slice(2).map(Number);
const input = readFileSync(0);
const reader = new OggReader();
const writer = new OggWriter({ serial: 7, channels: 1, preSkip });
process.stdout.write(writer.headers());
for (let at = 0; at < input.length; at += size) {
  for (const packet of reader.append(input.subarray(at, at + size))) process.stdout.write(writer.page([packet], samples));
}
