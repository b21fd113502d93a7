"""Memory that a step has freed is there for the next."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have the process keep the memory that it frees, instead of giving it back to the system.

    A step's maps are megabytes large. Given back after each use, they come page by page the next
    time, each of which the system looks for and clears: half the time of a small model's step. The
    process then holds what it has used at once, and some more that lies between.
    This is of glibc, by its man page ``mallopt(3)``; with another C library nothing is changed.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
