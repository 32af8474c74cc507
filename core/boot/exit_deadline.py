"""The end of this process, in time whatever hangs in it."""

import faulthandler
import os

EXIT_S = 5.0
"""How long the process may take when all of its work is done, or when a second signal asks it to hurry."""


def exit_within(seconds: float) -> None:
    """End this process after so many seconds unless it has ended by then, and print what each of its threads is at.

    A later call counts in place of an earlier one. The deadline holds where Python itself does not go on: while a
    plugin blocks the event loop, or while the standard library joins threads that never end.
    """
    try:
        faulthandler.dump_traceback_later(seconds, exit=True)
    except (RuntimeError, ValueError, OSError):  # stderr is closed, or is no file
        faulthandler.dump_traceback_later(seconds, exit=True, file=os.open(os.devnull, os.O_WRONLY))
