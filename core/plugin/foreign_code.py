"""Run the code of a plugin or of a library, and let nothing out of it but ordinary exceptions.

Much that is raised is no Exception: a Rust panic (`pyo3_runtime.PanicException`, from sphn or tokenizers), SystemExit,
KeyboardInterrupt, GeneratorExit, asyncio.CancelledError. Where such a thing passes through, it ends a task without a
word, or the event loop and with it every call. Only two of them may: the cancellation of the task that is running, and
an interrupt of the process.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CrashError(Exception):
    """Foreign code raised something that `except Exception` does not catch. `original` is what it raised."""

    def __init__(self, original: BaseException) -> None:
        self.original = original
        super().__init__(f"{type(original).__name__}: {original}")


@contextmanager
def foreign_code() -> Iterator[None]:
    """Around code that may raise anything: an Exception leaves it as it is, anything else as a CrashError.

    Our own cancellation and interrupts of the process pass. A StopIteration is a CrashError too, since neither a
    generator nor a future takes it for an error.
    """
    try:
        yield
    except BaseException as error:
        ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration)
        if ordinary or _is_interruption(error):
            raise
        raise CrashError(error) from error


def original(error: BaseException) -> BaseException:
    """What foreign code raised: the original of a CrashError, and any other error itself."""
    return error.original if isinstance(error, CrashError) else error


def _is_interruption(error: BaseException) -> bool:
    """Whether the code around it is to stop too, rather than foreign code having raised `error` by itself."""
    if isinstance(error, asyncio.CancelledError):
        task = _running_task()
        return task is not None and task.cancelling() > 0
    in_main_thread = threading.current_thread() is threading.main_thread()
    if isinstance(error, KeyboardInterrupt):  # where a handler is installed, Ctrl-C does not arrive as an exception
        return in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # A coroutine that is thrown away is closed by a GeneratorExit when its event loop has ended.
    return isinstance(error, GeneratorExit) and in_main_thread and _running_task() is None


def _running_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # there is no event loop in this thread
        return None
