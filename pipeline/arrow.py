"""pyarrow in workers, which never see a pandas object: what steps compute is computed in a child process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _Nowhere(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """See ``MetaPathFinder``."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=fullname)


def spare_pandas() -> None:
    """Settle, before anybody asks, that pyarrow does without pandas in this process.

    Where pandas is installed, pyarrow imports it when it makes its first array, to know a pandas object when it sees
    one: half a second to two, and 60 MB, in every process of a run. ``to_pandas`` works all the same, for it looks
    again. For workers alone: where steps of others run (a child process, a serial run, fitting), arrays may be made of
    pandas objects, whose missing numbers would then be no nulls.
    """
    if "pandas" in sys.modules:
        return
    finder = _Nowhere()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
