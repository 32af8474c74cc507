"""Slots, and the one thread that owns the device: gather frames, step, scatter; between steps, prepare prompts.

A call is admitted when there are a slot and all the memory that it may ever need: its prompt and its longest duration,
at most a full window. So no running call can run out of memory, whatever the others do; and shorter calls are more.
"""

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator

from core.engine.call import FRAME_S, DeviceHealth, EngineHealth, EngineInfo, Frame, OutputFrame
from core.engine.device_memory import memory_in_use
from core.engine.kv_cache import blocks_for
from core.engine.model import Model
from core.engine.prefill import Preparation
from core.engine.prefix_cache import Snapshot
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.engine.slot_call import SlotCall
from core.engine.tokenizer import Tokenizer
from core.errors import EngineBusyError, EngineError, PersonaplexError, PromptError
from core.settings.log import get_logger

STALL_SECONDS = 10.0
"""A step that takes longer than this will not come back."""
MAX_FRESH_SEED = 2**53
"""Beyond it, JSON numbers are not exact in every language."""
MAX_FAILURES = 3
"""Steps that may fail in a row before the engine says that it cannot go on."""

log = get_logger("engine")
Deliveries = dict[asyncio.AbstractEventLoop, list[tuple[SlotCall, OutputFrame]]]


class SlotEngine:
    """The engine that serves calls: see `core.engine.call.Engine`."""

    def __init__(
        self,
        info: EngineInfo,
        model: Model,
        preparation: Preparation,
        tokenizer: Tokenizer,
        packaged: Callable[[str], Voice | None],
        names: tuple[str, ...] = (),
        max_lag_ms: float = 400.0,
    ) -> None:
        self._info, self._model, self._preparation, self._tokenizer = info, model, preparation, tokenizer
        self._packaged, self._names = packaged, names
        self._max_waiting = max(1, round(max_lag_ms / 1000 / FRAME_S))
        self._wake = threading.Condition()
        self._free = list(range(model.slots))[::-1]
        self._calls: dict[int, SlotCall] = {}
        self._blocks: dict[int, list[int]] = {}
        """Of the model's cache, by slot."""
        self._arrivals: deque[tuple[SlotCall, Generator[None, None, Snapshot], Sampling]] = deque()
        self._closing: list[SlotCall] = []
        self._stopping = False
        self._working_since: float | None = None
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def health(self) -> EngineHealth:
        """How the engine is now; cheap, from any thread."""
        problem, since = self._problem, self._working_since
        if not problem and since is not None and time.monotonic() - since > STALL_SECONDS:
            problem = f"The engine has been at one step for {time.monotonic() - since:.0f} s: restart the process."
        return EngineHealth(busy=self._model.slots - len(self._free), slots=self._model.slots, problem=problem)

    def devices(self) -> tuple[DeviceHealth, ...]:
        health = self.health()
        memory = memory_in_use(self._model.lm.device)
        return (DeviceHealth(f"0 {self._info.device}", health.busy, health.slots, health.problem, memory),)

    def voices(self) -> tuple[str, ...]:
        return self._names

    def voice(self, name: str) -> Voice | None:
        return self._packaged(name) if name in self._names else None

    def open(self, prompt: Prompt, sampling: Sampling, longest_s: float | None = None) -> SlotCall:
        """Take a slot, from a running event loop.

        Raises EngineBusyError when there is no slot or not the memory for so long a call, PromptError when there never
        is, EngineError when unwell.
        """
        frames = self._model.lm.architecture.context
        if longest_s is not None:
            frames = min(frames, self._preparation.length(prompt) + math.ceil(longest_s / FRAME_S))
        if blocks_for(frames) > self._model.cache.blocks:
            raise PromptError("This prompt is too long for this server, which has memory for short calls only.")
        with self._wake:
            problem = self.health().problem
            if problem or self._stopping:
                raise EngineError(problem or "The engine is shutting down.")
            blocks = self._model.cache.borrow(frames) if self._free else None
            if blocks is None:
                self._wake.notify()  # A look for calls whose event loop is gone.
                raise EngineBusyError("All lines are taken. Try again in a moment.")
            seed = secrets.randbelow(MAX_FRESH_SEED) if sampling.seed is None else sampling.seed
            call = SlotCall(self, self._free[-1], seed, self._max_waiting, self._tokenizer.words())
            self._calls[self._free.pop()] = call
            self._blocks[call.slot] = blocks
            self._arrivals.append((call, self._preparation.prepare(prompt), sampling.over(self._info.sampling)))
            self._wake.notify()
        return call

    def close(self) -> None:
        """End every call with an error and stop the thread; from any thread, at most once."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=STALL_SECONDS)

    # What SlotCall uses.

    @contextlib.contextmanager
    def inputs_changed(self) -> Iterator[threading.Condition]:
        """Hold the lock over all calls' inputs; notify it when there is one more."""
        with self._wake:
            yield self._wake

    def release(self, call: SlotCall) -> bool:
        """Ask for a call's slot back; `call.released` is told when it is free. False when nobody is left to do it."""
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
            raise

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                if self._stopping:
                    break
                self._free_closed()
                batch = {slot: call.inputs.popleft() for slot, call in self._waiting().items()}
                arrival = self._arrivals[0] if self._arrivals else None
            self._working_since = time.monotonic()
            try:
                if arrival:
                    self._prepare(*arrival)
                if batch:
                    self._step(batch)
            except Exception as error:
                self._recover(error)
            self._working_since = None
        self._fail_all(EngineError("The server is shutting down."))
        with self._wake:
            self._free_closed()

    def _has_work(self) -> bool:
        return bool(self._stopping or self._closing or self._arrivals or self._waiting() or self._abandoned())

    def _abandoned(self) -> list[SlotCall]:
        """Calls that nobody can close any more: their event loop is gone."""
        return [call for call in self._calls.values() if call.loop.is_closed()]

    def _waiting(self) -> dict[int, SlotCall]:
        """Calls whose prompt is in its slot and who have a frame to answer."""
        return {slot: call for slot, call in self._calls.items() if call.begun and call.inputs}

    def _free_closed(self) -> None:
        """Take back the slots of calls that are closed, or whose event loop is gone."""
        for call in self._closing + self._abandoned():
            if self._calls.pop(call.slot, None) is not None:
                self._free.append(call.slot)
                self._model.cache.give_back(self._blocks.pop(call.slot))
            for arrival in [arrival for arrival in self._arrivals if arrival[0] is call]:
                self._arrivals.remove(arrival)
                arrival[1].close()
            call.tell(call.released)
        self._closing.clear()

    def _step(self, batch: dict[int, tuple[Frame, float]]) -> None:
        start = time.perf_counter()
        pcm, tokens = self._model.step({slot: frame for slot, (frame, _) in batch.items()})
        step_ms = (time.perf_counter() - start) * 1000
        self._failures = 0
        deliveries: Deliveries = defaultdict(list)
        for slot, (_, pushed) in batch.items():
            call = self._calls[slot]
            text = call.words.show(int(tokens[slot, 0]))
            wait_ms = (start - pushed) * 1000
            output = OutputFrame(call.count(), pcm[slot], text, tokens[slot], wait_ms, step_ms)
            deliveries[call.loop].append((call, output))
        for loop, outputs in deliveries.items():
            with contextlib.suppress(RuntimeError):  # The loop has closed without closing its calls.
                loop.call_soon_threadsafe(deliver, outputs)
        for call in [self._calls[slot] for slot in batch if not self._model.has_room(slot)]:
            call.begun = False
            call.tell(call.fail, EngineError("This call has lasted as long as it may. Please call again."))

    def _prepare(self, call: SlotCall, pieces: Generator[None, None, Snapshot], sampling: Sampling) -> None:
        """Read one piece of the prompt of the call that waits longest; at the end, begin."""
        try:
            next(pieces)
            return
        except StopIteration as end:
            snapshot: Snapshot = end.value
            outcome: PersonaplexError | None = None
        except PersonaplexError as error:
            outcome = error
        except Exception:
            log.exception("prompt failed")
            outcome = EngineError("The prompt could not be prepared. Please call again.")
        with self._wake:
            self._arrivals.popleft()
        if outcome is None:
            self._model.begin(call.slot, snapshot, sampling, call.seed, self._blocks[call.slot])
            call.begun = True
            call.tell(call.prepared)
        else:
            call.tell(call.fail, outcome)
            if isinstance(outcome, EngineError) and not isinstance(outcome, PromptError):
                self._model.step({})  # Raises, and ends all calls, when it was the device and not the prompt.

    def _recover(self, error: Exception) -> None:
        """A step has failed, so every slot's state is in doubt: all calls end; begin anew if the device can."""
        log.error("step failed", error=str(error), calls=len(self._calls), exc_info=error)
        self._fail_all(EngineError("The engine failed and has ended this call. Please call again."))
        self._failures += 1
        try:
            self._model.reset()
        except Exception as broken:
            self._problem = f"The device does not recover ({broken}): restart the process."
        if self._failures >= MAX_FAILURES:
            self._problem = f"{self._failures} steps failed in a row, at last with: {error}. Restart the process."
        if self._problem:
            log.critical("engine unwell", problem=self._problem)

    def _fail_all(self, error: EngineError) -> None:
        with self._wake:
            calls = list(self._calls.values())
            for _, pieces, _ in self._arrivals:
                pieces.close()
            self._arrivals.clear()
        for call in calls:
            call.begun = False
            call.tell(call.fail, error)


def deliver(outputs: list[tuple[SlotCall, OutputFrame]]) -> None:
    """Hand a step's frames to their calls, on their event loop."""
    for call, output in outputs:
        call.receive(output)
