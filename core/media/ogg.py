"""The Ogg container (RFC 3533) with Opus in it (RFC 7845): pages to packets, and packets to pages."""

import secrets
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import AudioError

CAPTURE = b"OggS"
HEADER = 27
"""Bytes of a page before its segment table."""
MAX_PACKET_BYTES = 16 * 1024
"""An Opus packet of 120 ms at the highest rate has 7,650 bytes, so a longer one is not Opus."""
OPUS_RATE = 48_000
"""Hz: granule positions and pre-skip count samples at this rate, whatever the sound's own."""
VENDOR = b"personaplex-modal"

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FOREIGN = {
    b"\x1aE\xdf\xa3": "WebM, as a browser's MediaRecorder makes it",
    b"RIFF": "a WAV file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
}
_CODECS = {b"\x01vorbis": "Vorbis", b"Speex   ": "Speex", b"\x7fFLAC": "FLAC"}


@dataclass(frozen=True)
class Page:
    """One Ogg page."""

    begins: bool
    """It is the first of its stream."""
    continues: bool
    """Its first segments belong to a packet that the page before began."""
    serial: int
    """Which stream it belongs to."""
    lacing: bytes
    """The lengths of its segments; a packet ends with the first that is less than 255."""
    body: bytes
    """The packets."""


class PageReader:
    """Takes bytes in any chunking and gives whole pages. Holds at most one page (65,307 bytes) back."""

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
            raise AudioError(not_ogg(bytes(have[:4])))
        if len(have) > 4 and have[4] != 0:
            raise AudioError(f"The audio has Ogg pages of version {have[4]}; only version 0 exists.")
        if len(have) < HEADER or len(have) < HEADER + have[26]:
            return None
        lacing = bytes(have[HEADER : HEADER + have[26]])
        start = HEADER + len(lacing)
        end = start + sum(lacing)
        if len(have) < end:
            return None
        page = Page(
            begins=bool(have[5] & 2),
            continues=bool(have[5] & 1),
            serial=int.from_bytes(have[14:18], "little"),
            lacing=lacing,
            body=bytes(have[start:end]),
        )
        del have[:end]
        return page


def not_ogg(start: bytes) -> str:
    """A sentence about audio that begins with these four bytes and is no Ogg: what it is, and what to send."""
    for magic, name in _FOREIGN.items():
        if start.startswith(magic[: len(start)]) and len(start) >= min(len(magic), 4):
            return f"The audio is {name}. Send Ogg/Opus, or connect with audio=pcm."
    return (
        "The audio is not an Ogg stream: a page must begin with 'OggS'. Wrap bare Opus packets in Ogg pages, "
        "or connect with audio=pcm."
    )


class PacketReader:
    """The Opus packets of an Ogg stream, from bytes in any chunking.

    Pages of streams whose beginning was not seen are dropped: at the start of a call they belong to an older
    connection. A page that begins an Opus stream replaces the stream before. Streams of another kind beside it, such as
    Skeleton, are passed over.
    """

    def __init__(self) -> None:
        self._pages = PageReader()
        self._serial: int | None = None
        self._other: str = ""
        """What the stream is that began before any Opus did."""
        self._headers = 0
        """How many of the two header packets have gone by."""
        self._unfinished = bytearray()
        self.streams = 0
        """How many Opus streams have begun."""
        self.pages = 0
        """How many pages have come, those passed over included."""

    def read(self, data: bytes) -> Iterator[bytes]:
        """The packets of sound completed by `data`; empty ones, which stand for silence, are left out.

        Raises AudioError for what is no Ogg/Opus that can be played.
        """
        for page in self._pages.read(data):
            self.pages += 1
            if page.begins:
                self._begin(page)
            if page.serial == self._serial:
                yield from self._packets(page)
            elif self._serial is None and self._other and not page.begins:
                raise AudioError(f"The audio is Ogg, but not Opus: {self._other}. Send Ogg/Opus, or audio=pcm.")

    def _begin(self, page: Page) -> None:
        if not page.body.startswith(b"OpusHead"):
            kind = next((name for magic, name in _CODECS.items() if page.body.startswith(magic)), "")
            if kind and self._serial is None:
                raise AudioError(f"The audio is Ogg, but not Opus: it is {kind}. Send Ogg/Opus, or audio=pcm.")
            self._other = "its first stream is of another kind"
            if page.serial == self._serial:
                self._serial = None
            return
        _check_head(page.body)
        self._serial = page.serial
        self._headers = 0
        self._unfinished.clear()
        self.streams += 1

    def _packets(self, page: Page) -> Iterator[bytes]:
        if not page.continues:
            self._unfinished.clear()
        at = 0
        for segment in page.lacing:
            if self._headers == 2:  # the tags may hold a picture: they go by without being kept
                self._unfinished += page.body[at : at + segment]
                if len(self._unfinished) > MAX_PACKET_BYTES:
                    raise AudioError(f"The audio has an Opus packet of more than {MAX_PACKET_BYTES} bytes.")
            at += segment
            if segment == 255:
                continue
            if self._headers < 2:
                self._headers += 1
            elif self._unfinished:
                yield bytes(self._unfinished)
            self._unfinished.clear()


def _check_head(head: bytes) -> None:
    """Raises AudioError unless this is the header of a mono or stereo stream (RFC 7845, 5.1)."""
    if len(head) < 19:
        raise AudioError("The audio has an Opus header that ends too early.")
    channels, family = head[9], head[18]
    if channels not in (1, 2) or (family != 0 and channels > 2):
        raise AudioError(f"The audio has {channels} channels; send mono or stereo.")


class PageWriter:
    """An Ogg/Opus stream, one page a packet, begun with its two headers."""

    def __init__(self, pre_skip: int) -> None:
        """`pre_skip`: samples at 48 kHz that a player leaves out at the beginning."""
        self._serial = secrets.randbits(32)
        self._sequence = 0
        self._granule = 0
        head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, pre_skip, OPUS_RATE // 2, 0, 0)
        tags = b"OpusTags" + struct.pack("<I", len(VENDOR)) + VENDOR + struct.pack("<I", 0)
        self._begun = self._page(head, flags=2) + self._page(tags)

    def write(self, packet: bytes, samples: int) -> bytes:
        """The page of a packet that holds so many samples at 48 kHz; at first with the headers before it."""
        self._granule += samples
        begun, self._begun = self._begun, b""
        return begun + self._page(packet)

    def _page(self, packet: bytes, flags: int = 0) -> bytes:
        lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        start = CAPTURE + struct.pack("<BBqII", 0, flags, self._granule, self._serial, self._sequence)
        rest = bytes([len(lacing)]) + lacing + packet
        self._sequence += 1
        return start + _checksum(start + bytes(4) + rest) + rest


def _checksum(page: bytes) -> bytes:
    """Ogg's CRC-32 of a page. It is zlib's with the bits of each byte, and of the result, in the other order, and with
    neither of zlib's inversions."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reflected.to_bytes(4, "big").translate(_REVERSED)
