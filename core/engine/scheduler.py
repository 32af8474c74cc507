"""The scheduler: slots, and the one thread that owns the device. It gathers frames, steps and scatters the results;
between steps it prefills prompts.

A call is admitted when there is a slot and all the memory that it may ever need: for its prompt and its longest
duration, at most a full window. So no running call can run out of memory, whatever the others do, and more of them fit
when calls are shorter.
"""

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from core.engine.call import FRAME_S, DeviceHealth, EngineHealth, EngineInfo, OutputFrame
from core.engine.device_memory import memory_in_use
from core.engine.input_queue import WaitingFrame
from core.engine.kv_cache import blocks_for, pinned_frames
from core.engine.model import Model
from core.engine.prefill import Prefill
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.engine.slot_call import SlotCall
from core.engine.speech_queue import UNFORCED
from core.engine.tokenizer import Tokenizer
from core.errors import EngineBusyError, EngineError, PersonaplexError, PromptError
from core.settings.log import get_logger

STALL_SECONDS = 10.0
"""A step that takes longer than this counts as stuck."""
MAX_FRESH_SEED = 2**53
"""The end of the range of random seeds; beyond it, JSON numbers are not exact in every language."""
MAX_FAILURES = 3
"""Steps that may fail in a row before the engine reports that it cannot continue."""

log = get_logger("engine")
Deliveries = dict[asyncio.AbstractEventLoop, list[tuple[SlotCall, OutputFrame]]]


class Arrival(NamedTuple):
    """A call whose prompt is not in its slot yet."""

    call: SlotCall
    chunks: Generator[None, None, PrefixCacheEntry]
    """The prefill of its prompt."""
    sampling: Sampling
    pin: bool
    """Whether the prompt stays in the window."""


class SlotEngine:
    """The engine that serves calls; `core.engine.call.Engine` documents its interface."""

    def __init__(
        self,
        info: EngineInfo,
        model: Model,
        prefill: Prefill,
        tokenizer: Tokenizer,
        load_voice: Callable[[str], Voice | None],
        voice_names: tuple[str, ...] = (),
        max_lag_ms: float = 400.0,
        pin_prompt: bool = True,
    ) -> None:
        """`pin_prompt` says whether prompts that do not say it themselves stay in the window."""
        self._info, self._model, self._prefill, self._tokenizer = info, model, prefill, tokenizer
        self._load_voice, self._voice_names = load_voice, voice_names
        self._pin_prompt = pin_prompt
        self._max_waiting = max(1, round(max_lag_ms / 1000 / FRAME_S))
        self._wake = threading.Condition()
        self._free_slots = list(range(model.slots))[::-1]
        self._calls: dict[int, SlotCall] = {}
        self._blocks: dict[int, list[int]] = {}
        """The blocks of the KV cache that each slot's call has been allocated."""
        self._arrivals: deque[Arrival] = deque()
        self._closing: list[SlotCall] = []
        self._stopping = False
        self._busy_since: float | None = None
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def health(self) -> EngineHealth:
        """The current state of the engine. Cheap, and may be called from any thread."""
        problem, since = self._problem, self._busy_since
        if not problem and since is not None and time.monotonic() - since > STALL_SECONDS:
            problem = f"The engine has been at one step for {time.monotonic() - since:.0f} s: restart the process."
        return EngineHealth(busy=self._model.slots - len(self._free_slots), slots=self._model.slots, problem=problem)

    def devices(self) -> tuple[DeviceHealth, ...]:
        """The state of the one device. Cheap, and may be called from any thread."""
        health = self.health()
        memory = memory_in_use(self._model.lm.device)
        return (DeviceHealth(f"0 {self._info.device}", health.busy, health.slots, health.problem, memory),)

    def voices(self) -> tuple[str, ...]:
        return self._voice_names

    def voice(self, name: str) -> Voice | None:
        return self._load_voice(name) if name in self._voice_names else None

    def prepare(self, voice: Voice) -> None:
        """See Engine. The recording is encoded while there is no call."""
        if self._prefill.voice_codes.ask(voice):
            with self._wake:
                self._wake.notify()

    def open(self, prompt: Prompt, sampling: Sampling, longest_s: float | None = None) -> SlotCall:
        """Occupy a slot; call this from a running event loop.

        Raises EngineBusyError when no slot is free or too little memory for so long a call, PromptError when even all
        of the memory is too little, and EngineError when the engine cannot serve.
        """
        frames = self._model.lm.architecture.context
        if longest_s is not None:
            frames = min(frames, self._prefill.length(prompt) + math.ceil(longest_s / FRAME_S))
        if blocks_for(frames) > self._model.cache.blocks:
            raise PromptError("This prompt is too long for this server, which has memory for short calls only.")
        with self._wake:
            problem = self.health().problem
            if problem or self._stopping:
                raise EngineError(problem or "The engine is shutting down.")
            blocks = self._model.cache.allocate(frames) if self._free_slots else None
            if blocks is None:
                self._wake.notify()  # The thread then looks for calls whose event loop is gone.
                raise EngineBusyError("Every slot is taken. Try again in a moment.")
            seed = secrets.randbelow(MAX_FRESH_SEED) if sampling.seed is None else sampling.seed
            call = SlotCall(self, self._free_slots[-1], seed, self._max_waiting, self._tokenizer)
            self._calls[self._free_slots.pop()] = call
            self._blocks[call.slot] = blocks
            pin = self._pin_prompt if prompt.pin is None else prompt.pin
            self._arrivals.append(Arrival(call, self._prefill.run(prompt), sampling.over(self._info.sampling), pin))
            self._wake.notify()
        return call

    def close(self) -> None:
        """End every call with an error and stop the thread. May be called from any thread, at most once."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=STALL_SECONDS)

    # The interface for SlotCall.

    @contextlib.contextmanager
    def inputs_changed(self) -> Iterator[threading.Condition]:
        """Hold the lock that guards all calls' inputs; notify the condition after adding one."""
        with self._wake:
            yield self._wake

    def release(self, call: SlotCall) -> bool:
        """Have the thread free a call's slot and then call `call.released`; False when the thread cannot any more."""
        with self._wake:
            if self._stopping or self._calls.get(call.slot) is not call:
                return False
            self._closing.append(call)
            self._wake.notify()
        return True

    # The engine's thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._problem = f"The engine's thread ended: {error}. Restart the process."
            self._fail_all(EngineError("The engine failed and has ended this call. Please call again."))
            with self._wake:  # from here on nobody is left to give a slot back
                self._stopping = True
                self._release_closed()
            raise

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                if self._stopping:
                    break
                self._release_closed()
                batch = {slot: call.inputs.pop() for slot, call in self._waiting().items()}
                arrival = self._arrivals[0] if self._arrivals else None
                may_prepare = self._may_prepare()
            self._busy_since = time.monotonic()
            try:
                if batch:
                    self._step(batch)
                if arrival:
                    self._prefill_chunk(arrival)
                if may_prepare:
                    self._prefill.voice_codes.advance()
            except BaseException as error:  # also a panic of a library in Rust
                self._recover(error)
            self._busy_since = None
        self._fail_all(EngineError("The server is shutting down."))
        with self._wake:
            self._release_closed()

    def _has_work(self) -> bool:
        calls = self._closing or self._arrivals or self._waiting() or self._abandoned()
        return bool(self._stopping or calls or self._may_prepare())

    def _may_prepare(self) -> bool:
        """Whether a voice can be encoded ahead without holding up any call."""
        return not self._calls and self._prefill.voice_codes.waiting

    def _abandoned(self) -> list[SlotCall]:
        """Calls whose event loop is gone, so that nobody can close them any more."""
        return [call for call in self._calls.values() if call.loop.is_closed()]

    def _waiting(self) -> dict[int, SlotCall]:
        """Calls whose prompt is in the slot and who have a frame to be answered."""
        return {slot: call for slot, call in self._calls.items() if call.begun and call.inputs}

    def _release_closed(self) -> None:
        """Free the slots of calls that are closed, or whose event loop is gone."""
        for call in self._closing + self._abandoned():
            if self._calls.pop(call.slot, None) is not None:
                self._free_slots.append(call.slot)
                self._model.cache.free(self._blocks.pop(call.slot))
            for arrival in [arrival for arrival in self._arrivals if arrival.call is call]:
                self._arrivals.remove(arrival)
                arrival.chunks.close()
            call.tell(call.released)
        self._closing.clear()

    def _step(self, batch: dict[int, WaitingFrame]) -> None:
        start = time.perf_counter()
        frames = {slot: waiting.frame for slot, waiting in batch.items()}
        orders = {slot: self._calls[slot].speech.next() for slot in batch}
        forced = {slot: order for slot, order in orders.items() if order is not UNFORCED}
        pcm, tokens, texts = self._model.step(frames, forced)
        step_ms = (time.perf_counter() - start) * 1000
        self._failures = 0
        deliveries: Deliveries = defaultdict(list)
        for slot, waiting in batch.items():
            call = self._calls[slot]
            text = call.detokenizer.decode(int(tokens[slot, 0]))
            wait_ms = (start - waiting.pushed) * 1000
            said, ended = call.speech.given
            call.speech.sampled(*texts[slot].tolist())
            timing, window = (wait_ms, step_ms, waiting.position), self._model.window(slot)
            output = OutputFrame(call.next_index(), pcm[slot], text, tokens[slot], *timing, said, ended, window)
            deliveries[call.loop].append((call, output))
        for loop, outputs in deliveries.items():
            with contextlib.suppress(RuntimeError):  # The loop has closed without closing its calls.
                loop.call_soon_threadsafe(deliver, outputs)
        for call in [self._calls[slot] for slot in batch if not self._model.has_room(slot)]:
            call.begun = False
            call.tell(call.fail, EngineError("This call has lasted as long as it may. Please call again."))

    def _prefill_chunk(self, arrival: "Arrival") -> None:
        """Prefill one chunk of the prompt of the call that has waited longest; after the last one, begin the call."""
        call, sampling, pin = arrival.call, arrival.sampling, arrival.pin
        try:
            next(arrival.chunks)
            return
        except StopIteration as end:
            entry: PrefixCacheEntry = end.value
            outcome: PersonaplexError | None = None
        except PersonaplexError as error:
            outcome = error
        except BaseException:  # also a panic of a library in Rust, which may read a recording
            log.exception("prompt failed")
            outcome = EngineError("The prompt could not be prepared. Please call again.")
        with self._wake:
            self._arrivals.popleft()
        if outcome is None:
            if pin and not pinned_frames(entry.length, self._model.lm.architecture.context):
                log.warning("prompt too long to be pinned", positions=entry.length)
            blocks, forced = self._blocks[call.slot], call.speech.next()
            call.speech.sampled(*self._model.begin(call.slot, entry, sampling, call.seed, blocks, forced, pin))
            call.begun = True
            call.tell(call.became_ready)
        else:
            call.tell(call.fail, outcome)
            if isinstance(outcome, EngineError) and not isinstance(outcome, PromptError):
                self._model.step({})  # Raises, and ends all calls, when it was the device and not the prompt.

    def _recover(self, error: BaseException) -> None:
        """End all calls after a failed step, which leaves the state of every slot in doubt, and reset the model."""
        log.error("step failed", error=str(error), calls=len(self._calls), exc_info=error)
        self._fail_all(EngineError("The engine failed and has ended this call. Please call again."))
        self._failures += 1
        try:
            self._model.reset()
        except Exception as failure:
            self._problem = f"The device does not recover ({failure}): restart the process."
        if self._failures >= MAX_FAILURES:
            self._problem = f"{self._failures} steps failed in a row, at last with: {error}. Restart the process."
        if self._problem:
            log.critical("engine unwell", problem=self._problem)

    def _fail_all(self, error: EngineError) -> None:
        with self._wake:
            calls = list(self._calls.values())
            for arrival in self._arrivals:
                arrival.chunks.close()
            self._arrivals.clear()
        for call in calls:
            call.begun = False
            call.tell(call.fail, error)


def deliver(outputs: list[tuple[SlotCall, OutputFrame]]) -> None:
    """Pass a step's frames to their calls; runs on the calls' event loop."""
    for call, output in outputs:
        call.receive(output)
