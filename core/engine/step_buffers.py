"""What host and device hand each other at a step: one buffer each way, so that each way is one copy."""

import torch

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, USER_CODEBOOKS
from core.engine.call import FRAME_SAMPLES

# The fields that a row of a step's batch has, by their place; each is one int64 a row.
POSITION = 0
"""That the step reads."""
TOKENS = slice(1, 1 + STREAMS)
"""What it reads there: text, agent, user; but for the user's codebook 0, which comes with the frame."""
SEED = 1 + STREAMS
TOP_K = slice(SEED + 1, SEED + 3)
"""Of the text, and of the codebooks; so are the temperatures."""
TEMPERATURE = slice(SEED + 3, SEED + 5)
"""float64, in the same bits."""
SLOT = SEED + 5
"""Whose row it is, for the codec."""
ACTIVE = SEED + 6
"""1, or 0 in rows of nobody."""
TABLE = SEED + 7
"""From here on the call's blocks in the cache."""

TEXT, AGENT, USER = slice(0, 1), slice(1, 1 + AGENT_CODEBOOKS), slice(STREAMS - USER_CODEBOOKS, STREAMS)
"""Among the tokens."""
SAMPLES_IN_A_WORD = 2


class Buffer:
    """`fields`: int64[fields, rows] and `pcm`: float32[rows, 1920], in one piece of memory, `words`."""

    def __init__(self, fields: int, rows: int, device: torch.device, pinned: bool = False) -> None:
        words = rows * (fields + FRAME_SAMPLES // SAMPLES_IN_A_WORD)
        self.words = torch.zeros(words, dtype=torch.int64, device=device, pin_memory=pinned)
        self.fields = self.words[: fields * rows].view(fields, rows)
        self.pcm = self.words[fields * rows :].view(torch.float32).view(rows, FRAME_SAMPLES)


class Exchange:
    """A buffer on the host and its counterpart on the device; on a CPU they are one.

    Beside a CUDA card the host's is pinned, for copies that do not wait.
    """

    def __init__(self, fields: int, rows: int, device: torch.device) -> None:
        card = device.type == "cuda"
        self.device = Buffer(fields, rows, device)
        self._host = Buffer(fields, rows, torch.device("cpu"), pinned=True) if card else self.device
        self.fields, self.pcm = self._host.fields.numpy(), self._host.pcm.numpy()
        """The host's side."""

    def send(self) -> None:
        """Copy to the device."""
        if self._host is not self.device:
            self.device.words.copy_(self._host.words, non_blocking=True)

    def fetch(self) -> None:
        """Copy from the device; wait for the device before reading."""
        if self._host is not self.device:
            self._host.words.copy_(self.device.words, non_blocking=True)
