import assert from "node:assert/strict";
import { test } from "node:test";
import { Turns, VoiceActivity, overlaps, total } from "../../web/turns.js";

const STEP = 0.04;

/** Feed levels, one each 40 ms, from a time on; the times and what was said of each. */
function feed(turns, levels, from = 0, muted = false) {
  return levels.map(([you, agent], index) => turns.add(you, agent, muted, from + index * STEP));
}
const steady = (seconds, you, agent) => Array.from({ length: Math.round(seconds / STEP) }, () => [you, agent]);

test("a silent line listens, and a click is no speech", () => {
  const turns = new Turns();
  const said = feed(turns, [...steady(2, 0, 0), [0.5, 0], [0.5, 0], ...steady(1, 0, 0)]);
  assert.deepEqual(new Set(said), new Set(["listening"]));
  assert.deepEqual(turns.you.spans, []);
});

test("speech is heard, holds over a short pause, and its span is as long as it was", () => {
  const turns = new Turns();
  const said = feed(turns, [...steady(1, 0, 0), ...steady(1, 0.2, 0), ...steady(0.4, 0, 0), ...steady(1, 0.2, 0), ...steady(2, 0, 0)]);
  assert.equal(said[Math.round(2.2 / STEP)], "heard");
  assert.equal(said.at(-1), "listening");
  assert.equal(turns.you.spans.length, 1);
  assert.ok(Math.abs(total(turns.you.spans) - 2.4) < 0.1, String(total(turns.you.spans)));
});

test("who begins while the other speaks interrupts", () => {
  const turns = new Turns();
  const said = feed(turns, [...steady(1, 0, 0.3), ...steady(1, 0.3, 0.3), ...steady(1.5, 0.3, 0), ...steady(1, 0.3, 0.3)]);
  assert.equal(said[Math.round(0.8 / STEP)], "speaking");
  assert.equal(said[Math.round(1.8 / STEP)], "interrupting");
  assert.equal(said[Math.round(3.2 / STEP)], "heard");
  assert.equal(said.at(-1), "both");
  const both = overlaps(turns.you.spans, turns.agent.spans);
  assert.equal(both.length, 2);
  assert.ok(Math.abs(both[0].end - both[0].start - 1) < 0.2);
});

test("the muted are muted, and what their microphone picks up does not count", () => {
  const turns = new Turns();
  assert.deepEqual(new Set(feed(turns, steady(2, 0.5, 0), 0, true)), new Set(["muted"]));
  assert.deepEqual(turns.you.spans, []);
});

test("a steady noise is learnt, and speech above it is still heard", () => {
  const voice = new VoiceActivity();
  for (let at = 0; at < 30; at += STEP) voice.add(0.03, at);
  assert.equal(voice.active, false);
  for (let at = 30; at < 31; at += STEP) voice.add(0.4, at);
  assert.equal(voice.active, true);
});

test("no overlap where one is silent", () => {
  assert.deepEqual(overlaps([], [{ start: 0, end: 1 }]), []);
  assert.deepEqual(overlaps([{ start: 0, end: 1 }], [{ start: 1, end: 2 }]), []);
});
