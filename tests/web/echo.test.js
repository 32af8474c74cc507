/** The echo detector: finds a delayed, quieter copy of the agent, and not a person who takes turns or talks along. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EchoDetector, LEVELS_PER_SECOND } from "../../web/echo.js";

/** Levels of speech: syllables and pauses, from a seed. */
function speech(seed, count) {
  const levels = [];
  let [state, left, level] = [seed, 0, 0];
  const chance = () => (state = (state * 1664525 + 1013904223) >>> 0) / 2 ** 32;
  while (levels.length < count) {
    if (left-- <= 0) [left, level] = [2 + Math.floor(chance() * 6), chance() < 0.3 ? 0 : 0.05 + 0.5 * chance()];
    levels.push(level * (0.8 + 0.4 * chance()));
  }
  return levels;
}

function detects(microphone, agent) {
  const detector = new EchoDetector();
  return agent.map((level, index) => detector.add(microphone[index], level)).includes(true);
}

const SECONDS = 30;
const COUNT = SECONDS * LEVELS_PER_SECOND;

test("hears the agent in the microphone, quieter and later", () => {
  for (const lag of [1, 5, 12]) {
    const agent = speech(1, COUNT);
    const microphone = agent.map((_, index) => 0.1 * (agent[index - lag] ?? 0) + 0.003);
    assert.ok(detects(microphone, agent), `${lag} levels later`);
  }
});

test("says nothing of two people who talk, take turns or are silent", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const agent = speech(seed, COUNT);
    const person = speech(seed + 1000, COUNT);
    assert.ok(!detects(person, agent), `both talking, seed ${seed}`);
    const turns = (/** @type {number[]} */ levels, /** @type {number} */ side) =>
      levels.map((level, index) => (Math.floor(index / 75) % 2 === side ? level : 0));
    assert.ok(!detects(turns(person, 0), turns(agent, 1)), `turns, seed ${seed}`);
    assert.ok(!detects(agent.map(() => 0.001), agent), "silent microphone");
    assert.ok(!detects(person, person.map((_, index) => person[index - 6] ?? 0)), `an agent that repeats, seed ${seed}`);
  }
});
