"""A FLAC file that can be played at any time while it is written, and after the process was killed."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

BLOCK_SIZE = 8
"""The offset in the header of the number of samples in a block, 16 bits (RFC 9639, 8.2)."""
TOTAL_SAMPLES = 21
"""The offset of the number of samples in the file: the last 36 of 40 bits."""


class FlacWriter:
    """Writes a new file of 16-bit samples, block by block. Not safe in two threads at once."""

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        """Create the file, which only this user may read. Raises OSError, also when it exists already."""
        self._file = _File(path)
        self._flac = soundfile.SoundFile(
            self._file, "w", samplerate=sample_rate, channels=channels, format="FLAC", subtype="PCM_16"
        )
        self._samples = 0

    def write(self, samples: npt.NDArray[np.int16]) -> None:
        """Append int16[n, channels]. Raises OSError; what was written before stays in the file."""
        self._flac.write(samples)
        self._samples += len(samples)
        self._file.check()
        self._file.write_length(self._samples)

    def close(self) -> None:
        """Write the last block and close. Raises OSError; the file is closed all the same."""
        self._flac.close()
        self._file.close()
        self._file.check()


class _File:
    """The file that libsndfile writes to. Its callbacks cannot report an error, so `check` raises it afterwards."""

    def __init__(self, path: Path) -> None:
        self._descriptor = create(path)
        self._problem: OSError | None = None

    def write(self, data: bytes) -> int:
        """All of `data`; nothing after an error."""
        if self._problem is None:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError as error:
                self._problem = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.IOBase."""
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """See io.IOBase."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def check(self) -> None:
        """Raise the first error that a write met."""
        if self._problem is not None:
            raise self._problem

    def write_length(self, samples: int) -> None:
        """Put the number of samples in whole blocks into the header, which libFLAC does only when it closes a file."""
        block = int.from_bytes(os.pread(self._descriptor, 2, BLOCK_SIZE), "big")
        bits = int.from_bytes(os.pread(self._descriptor, 5, TOTAL_SAMPLES), "big")
        bits = bits >> 36 << 36 | samples // block * block
        os.pwrite(self._descriptor, bits.to_bytes(5, "big"), TOTAL_SAMPLES)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def create(path: Path) -> int:
    """The descriptor of a new file that only this user may read. Raises OSError, also when it exists already."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
