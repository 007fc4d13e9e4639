"""Loops in plain Python, compiled on their first use in a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

R = TypeVar("R")


@cache
def compiled(loop: Callable[..., R]) -> Callable[..., R]:
    """Machine code of ``loop``, kept beside its module like Python's own where that folder can be written.

    It holds no lock of Python's, and divides as NumPy does. Importing numba and compiling take half a second each.
    """
    import numba

    try:
        machine_code: Callable[..., R] = numba.njit(nogil=True, error_model="numpy", cache=True)(loop)
    except RuntimeError:  # no folder to keep it in
        machine_code = numba.njit(nogil=True, error_model="numpy")(loop)
    return machine_code
