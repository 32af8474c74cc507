"""Voices on their way between processes: files in the private folder, named by what they sound like.

A voice may have megabytes, and many calls have the same: so each crosses once.
"""

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from core.engine.prompt import Prompt, Voice
from core.errors import PromptError
from core.workers.messages import SentPrompt

MOST_FILES = 256
"""Beyond it the file goes that was asked for longest ago."""
MOST_CACHED = 32
"""Voices that a process keeps in memory."""


class VoiceFiles:
    """The voices in a folder that all processes of a service share. Its methods block on the disk, and on hashing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cached: OrderedDict[str, Voice] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, prompt: Prompt) -> SentPrompt:
        """The prompt for another process; its voice is in the folder then."""
        if prompt.voice is None:
            return SentPrompt(prompt.text, None, None, prompt.pin)
        return SentPrompt(prompt.text, prompt.voice.name, self.put(prompt.voice), prompt.pin)

    def receive(self, sent: SentPrompt) -> Prompt:
        """The prompt that another process sent. Raises PromptError when its voice is no longer there."""
        if sent.voice is None or sent.fingerprint is None:
            return Prompt(sent.text, pin=sent.pin)
        return Prompt(sent.text, self.get(sent.voice, sent.fingerprint), sent.pin)

    def put(self, voice: Voice) -> str:
        """Put a voice into the folder; its fingerprint."""
        path = self._folder / voice.fingerprint
        try:
            os.utime(path)
        except FileNotFoundError:
            forms = {"pcm": voice.pcm, "codes": voice.codes, "embeddings": voice.embeddings, "ring": voice.ring}
            data = safetensors.numpy.save({name: form.copy("C") for name, form in forms.items() if form is not None})
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
            self._prune()
        return voice.fingerprint

    def get(self, name: str, fingerprint: str) -> Voice:
        """The voice of that fingerprint, under any name. Raises PromptError when it is not there."""
        with self._lock:
            if fingerprint not in self._cached:
                try:
                    self._cached[fingerprint] = Voice(name, **safetensors.numpy.load_file(self._folder / fingerprint))
                except (OSError, SafetensorError) as error:
                    raise PromptError(f"The voice {name} did not reach the engine. Call again.") from error
                while len(self._cached) > MOST_CACHED:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(fingerprint)
            return self._cached[fingerprint]

    def _prune(self) -> None:
        files = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        if len(files) > MOST_FILES:
            with contextlib.suppress(FileNotFoundError):  # another process prunes, too
                for path in sorted(files, key=lambda path: path.stat().st_mtime)[:-MOST_FILES]:
                    path.unlink(missing_ok=True)
