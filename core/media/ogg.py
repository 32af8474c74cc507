"""Splits a stream of bytes into Ogg pages (RFC 3533)."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import AudioError

CAPTURE = b"OggS"
HEADER = 27
"""Bytes of a page before its segment table."""


@dataclass(frozen=True)
class Page:
    """One Ogg page."""

    data: bytes
    """The whole page, header included."""
    begins: bool
    """Whether it is the first page of its stream."""
    continues: bool
    """Whether it continues a packet of the page before."""
    serial: int
    """The serial number of its stream."""
    lacing: bytes
    """The lengths of its segments; a packet ends with the first one below 255."""

    @property
    def body(self) -> bytes:
        """The packets."""
        return self.data[HEADER + len(self.lacing) :]


class PageReader:
    """Takes bytes in any chunking and returns whole pages. Buffers at most one page (65,307 bytes)."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def read(self, data: bytes) -> Iterator[Page]:
        """The pages completed by `data`. Raises AudioError where the bytes are not Ogg."""
        self._bytes += data
        while (page := self._next()) is not None:
            yield page

    def _next(self) -> Page | None:
        have = self._bytes
        if have[:4] != CAPTURE[: len(have)]:
            raise AudioError("The audio is not an Ogg stream: a page must begin with 'OggS'.")
        if len(have) > 4 and have[4] != 0:
            raise AudioError(f"The audio has Ogg pages of version {have[4]}; only version 0 exists.")
        if len(have) < HEADER or len(have) < HEADER + have[26]:
            return None
        lacing = bytes(have[HEADER : HEADER + have[26]])
        end = HEADER + len(lacing) + sum(lacing)
        if len(have) < end:
            return None
        page = Page(
            data=bytes(have[:end]),
            begins=bool(have[5] & 2),
            continues=bool(have[5] & 1),
            serial=int.from_bytes(have[14:18], "little"),
            lacing=lacing,
        )
        del have[:end]
        return page
