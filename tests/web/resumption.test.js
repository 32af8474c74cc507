import assert from "node:assert/strict";
import { test } from "node:test";
import { Resumption } from "../../web/resumption.js";

const URL_ = "wss://example.com/ws/chat?persona=hotel&audio=opus";

test("a call that has not begun has nothing to go on with", () => {
  const resumption = new Resumption();
  assert.equal(resumption.possible, false);
  assert.equal(resumption.address(URL_), URL_);
});

test("a conversation goes on with the last token and the words that have come", () => {
  const resumption = new Resumption();
  resumption.ready({ session: "a", resume: "0.first" });
  assert.equal(resumption.resumed, false);
  resumption.heard();
  resumption.ready({ session: "a", resume: "0.next/+" });
  resumption.heard();
  assert.equal(resumption.resumed, true);
  const query = new URL(resumption.address(URL_)).searchParams;
  assert.deepEqual([query.get("resume"), query.get("words"), query.get("audio")], ["0.next/+", "2", "opus"]);
});

test("after giving up, a new conversation counts its words anew", () => {
  const resumption = new Resumption();
  resumption.ready({ session: "a", resume: "0.first" });
  resumption.heard();
  resumption.giveUp();
  assert.equal(resumption.possible, false);
  assert.equal(resumption.address(URL_), URL_);
  resumption.ready({ session: "b", resume: "0.other" });
  assert.equal(resumption.resumed, false);
  assert.equal(new URL(resumption.address(URL_)).searchParams.get("words"), "0");
});

test("a server that keeps no calls gives no token", () => {
  const resumption = new Resumption();
  resumption.ready({ session: "a" });
  assert.equal(resumption.possible, false);
});
