"""Settings for every test: no telemetry, no oversubscribed threads, real media where they lie beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_media() -> Path:
    """The folder of real media beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real media in {SHARED}")
    return SHARED


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the text of a catalog, beside an empty folder ``media``."""
    (tmp_path / "media").mkdir()

    def _write(text: str) -> Path:
        path = tmp_path / "data_catalog.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write
