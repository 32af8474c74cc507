/** The playback buffer under simulated arrivals: what is heard, how long it waits, how it recovers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { JitterBuffer } from "../../web/jitter.js";

const RATE = 48000;
const QUANTUM = 128;
const FRAME = 0.08 * RATE;

/** A small generator with a seed, so that every run sees the same arrivals. */
function random(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

/** A voice-like tone of 200 Hz; `pauses` makes it silent for 300 ms of every second. */
function voice(index, pauses) {
  const silent = pauses && index % RATE > 0.7 * RATE;
  return silent ? 0 : 0.3 * Math.sin((2 * Math.PI * 200 * index) / RATE);
}

/**
 * Play `seconds` of frames that arrive at `arrival(n)` (seconds); each of `pieces` comes as its own message.
 * `series` holds a report for every second.
 */
function play({ seconds, arrival, pieces = 1, pauses = true }) {
  const buffer = new JitterBuffer(RATE);
  const output = new Float32Array(QUANTUM);
  const heard = [];
  const series = [];
  let frame = 0;
  let sent = 0;
  for (let now = 0; now < seconds * RATE; now += QUANTUM) {
    while (arrival(frame) * RATE <= now) {
      for (let piece = 0; piece < pieces; piece++) {
        const samples = new Float32Array(FRAME / pieces);
        for (let at = 0; at < samples.length; at++) samples[at] = voice(sent++, pauses);
        buffer.push(samples, now);
      }
      frame += 1;
    }
    buffer.pull(output, now);
    heard.push(...output);
    if (now % RATE < QUANTUM && now > QUANTUM) series.push(buffer.stats());
  }
  return { heard, series, last: series.at(-1) };
}

const steady = (n) => 0.1 + n * 0.08;
const clickless = (heard) => {
  let steepest = 0;
  for (let at = 1; at < heard.length; at++) steepest = Math.max(steepest, Math.abs(heard[at] - heard[at - 1]));
  return steepest;
};

test("steady arrivals: starts with 60 to 80 ms, then least delay, no gap, nothing lost but silence", () => {
  for (const pieces of [1, 2, 4]) {
    const { heard, series, last } = play({ seconds: 20, arrival: steady, pieces });
    assert.equal(last.underruns, 0);
    assert.ok(series[0].depthMs > 55 && series[0].depthMs < 85, `${series[0].depthMs} ms at first`);
    assert.ok(last.depthMs >= 38 && last.depthMs < 66, `${last.depthMs} ms in the end, ${pieces} pieces`);
    assert.ok(last.droppedMs < 50);
    assert.ok(clickless(heard) < 0.05);
  }
});

test("jitter of 60 ms: few gaps at first, none once adapted, delay bounded", () => {
  const chance = random(7);
  const late = Array.from({ length: 1000 }, () => chance() * 0.06);
  const { series, last } = play({ seconds: 40, arrival: (n) => steady(n) + late[n] });
  assert.ok(last.underruns <= 3, `${last.underruns} gaps`);
  assert.equal(series.at(-1).underruns, series[9].underruns, "gaps after ten seconds");
  assert.ok(last.depthMs < 140, `${last.depthMs} ms`);
});

test("bursts: two frames at a time play without a gap, within the cap", () => {
  const { series, last } = play({ seconds: 30, arrival: (n) => steady(Math.floor(n / 2) * 2 + 1) });
  assert.equal(last.underruns, series[9].underruns);
  assert.ok(series.every((report) => report.depthMs < 300));
});

test("a stall whose audio then comes all at once leaves no delay behind", () => {
  const { heard, series, last } = play({ seconds: 30, arrival: (n) => Math.max(steady(n), n > 60 && n < 90 ? 7.3 : 0) });
  assert.ok(last.underruns >= 1 && last.underruns <= 2, `${last.underruns} gaps`);
  assert.ok(Math.max(...series.map((report) => report.depthMs)) < 300);
  assert.ok(last.depthMs < 66, `${last.depthMs} ms long after`);
  assert.ok(last.droppedMs > 1000, "what came too late is left out");
  assert.ok(clickless(heard) < 0.3);
});

test("a stall whose audio never comes goes on as before", () => {
  const { last } = play({ seconds: 30, arrival: (n) => steady(n) + (n > 60 ? 2 : 0) });
  assert.equal(last.underruns, 1);
  assert.ok(last.depthMs < 66, `${last.depthMs} ms`);
});

test("drift both ways is followed without pauses to help, without gaps and without growth", () => {
  for (const drift of [0.9985, 1.0015]) {
    const { heard, series, last } = play({ seconds: 60, arrival: (n) => 0.1 + n * 0.08 * drift, pauses: false });
    assert.ok(last.underruns <= 1, `${last.underruns} gaps at ${drift}`);
    assert.ok(Math.max(...series.map((report) => report.depthMs)) < 110, `drift ${drift}`);
    assert.ok(clickless(heard) < 0.08, "splices are not heard as clicks");
  }
});

test("delay shrinks again when the line calms, in speech that never pauses too", () => {
  const chance = random(3);
  const late = Array.from({ length: 100 }, () => chance() * 0.12);
  for (const pauses of [true, false]) {
    const { series, last } = play({ seconds: 45, arrival: (n) => steady(n) + (late[n] ?? 0), pauses });
    assert.ok(series[7].depthMs > 90, `${series[7].depthMs} ms while uneven`);
    assert.ok(last.depthMs < 66, `${last.depthMs} ms when calm`);
    assert.equal(last.underruns, series[12].underruns);
  }
});

test("a new stream starts clean", () => {
  const buffer = new JitterBuffer(RATE);
  const output = new Float32Array(QUANTUM);
  buffer.push(new Float32Array(FRAME).fill(0.5), 0);
  buffer.reset();
  buffer.pull(output, RATE);
  assert.ok(output.every((sample) => sample === 0));
  assert.equal(buffer.stats().underruns, 0);
});
