import assert from "node:assert/strict";
import { test } from "node:test";
import { momentOfCall, placeInRecording } from "../../web/summary.js";

const recorded = [
  { start: 5, end: 10 },
  { start: 20, end: 26 },
];

test("a moment of the call is found in a recording that was switched off and on", () => {
  assert.deepEqual([0, 5, 7, 10, 15, 20, 23, 99].map((seconds) => placeInRecording(recorded, seconds)), [0, 0, 2, 5, 5, 5, 8, 11]);
});

test("a place in the recording is found in the call", () => {
  assert.deepEqual([0, 2, 6, 11, 50].map((place) => momentOfCall(recorded, place)), [5, 7, 21, 26, 26]);
});
