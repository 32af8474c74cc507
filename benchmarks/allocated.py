"""How much memory is in use, apart from what the allocator keeps for later."""

import ctypes


class _Info(ctypes.Structure):
    """glibc's `struct mallinfo2`: all arenas together."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def bytes_in_use() -> int:
    """Bytes given out by malloc in this process and not taken back; 0 where there is no glibc (2.33 or newer)."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    function.restype = _Info
    info = function()
    return int(info.uordblks + info.hblkhd)
