/** The resampler: a sine keeps its level and pitch, what cannot be kept disappears, pieces do not matter. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Resampler } from "../../web/resampler.js";

const sine = (rate, frequency, seconds) =>
  Float32Array.from({ length: rate * seconds }, (_, index) => Math.sin((2 * Math.PI * frequency * index) / rate));

/** Push in pieces of uneven length, as a device might give them. */
function convert(from, to, input) {
  const resampler = new Resampler(from, to);
  const output = [];
  for (let at = 0, size = 1; at < input.length; at += size, size = (size % 500) + 128) {
    output.push(...resampler.process(input.subarray(at, at + size)));
  }
  return output;
}

/** Level of one frequency in the settled middle (Hann window), and of everything else together; full scale is 1. */
function levels(samples, rate, frequency) {
  const part = samples.slice(2000, samples.length - 2000);
  let [real, imaginary, weight] = [0, 0, 0];
  part.forEach((sample, index) => {
    const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / (part.length - 1));
    const angle = (2 * Math.PI * frequency * index) / rate;
    real += window * sample * Math.cos(angle);
    imaginary += window * sample * Math.sin(angle);
    weight += window;
  });
  const [a, b] = [(2 * real) / weight, (2 * imaginary) / weight];
  let rest = 0;
  part.forEach((sample, index) => {
    const angle = (2 * Math.PI * frequency * index) / rate;
    rest += (sample - a * Math.cos(angle) - b * Math.sin(angle)) ** 2;
  });
  return { tone: Math.hypot(a, b), rest: Math.sqrt(rest / part.length) };
}

for (const [from, to] of [[44100, 48000], [16000, 48000], [96000, 48000], [48000, 24000], [48000, 44100], [8000, 48000], [22050, 48000]]) {
  test(`${from} to ${to} Hz keeps length, level and pitch`, () => {
    for (const frequency of [200, 0.35 * Math.min(from, to)]) {
      const output = convert(from, to, sine(from, frequency, 0.5));
      assert.ok(Math.abs(output.length - to * 0.5) < 0.002 * to, `${output.length} samples`);
      const { tone, rest } = levels(output, to, frequency);
      assert.ok(Math.abs(20 * Math.log10(tone)) < 0.1, `${frequency} Hz has level ${tone}`);
      assert.ok(20 * Math.log10(rest) < -60, `everything else at ${20 * Math.log10(rest)} dB`);
    }
  });
}

test("what the lower rate cannot hold is gone, not folded back", () => {
  for (const frequency of [12100, 15000, 21000]) {
    const output = convert(48000, 24000, sine(48000, frequency, 0.5)).slice(1000, -1000);
    const loudest = output.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    assert.ok(20 * Math.log10(loudest) < -60, `${frequency} Hz leaves ${20 * Math.log10(loudest)} dB`);
  }
});

test("pieces of any length give the same samples as one piece", () => {
  const input = sine(44100, 500, 0.3);
  assert.deepEqual(convert(44100, 48000, input), [...new Resampler(44100, 48000).process(input)]);
});

test("delay is a millisecond at most", () => {
  for (const [from, to] of [[44100, 48000], [48000, 24000]]) {
    const impulse = new Float32Array(from / 10);
    impulse[1000] = 1;
    const output = [...new Resampler(from, to).process(impulse)];
    const peak = output.indexOf(Math.max(...output));
    const delay = peak / to - 1000 / from;
    assert.ok(delay >= 0 && delay <= 0.0011, `${delay * 1000} ms`);
  }
});

test("equal rates pass through untouched", () => {
  const input = sine(48000, 300, 0.1);
  assert.equal(new Resampler(48000, 48000).process(input), input);
});

test("a rate that is none is refused", () => {
  assert.throws(() => new Resampler(0, 48000), /whole numbers/);
  assert.throws(() => new Resampler(44100.5, 48000), /whole numbers/);
});
