"""The command of ``on_failure``: called when a run turns red, to send a mail, ring a bell, open a ticket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import asdict
from typing import Any

from pipeline.catalog import Catalog
from pipeline.events import Events
from pipeline.record import RunReport

SECONDS = 60.0
"""How long the command may take; then it and its children are killed."""
_GRACE_SECONDS = 5.0
_SHOWN = 500


def facts(report: RunReport) -> dict[str, Any]:
    """What the command is told on standard input, as a JSON document."""
    names = ("run_id", "dataset", "status", "started", "finished", "base", "snapshot", "error", "page")
    return {name: getattr(report, name) for name in names} | {
        "samples": None if report.samples is None else asdict(report.samples),
        "quarantine_by_reason": report.quarantine_by_reason,
        "seconds": report.seconds,
    }


def call_for_help(catalog: Catalog, report: RunReport, events: Events, *, seconds: float = SECONDS) -> None:
    """Call the command without a shell, in the catalog's folder, the facts on standard input and in the environment.

    ``GRISTMILL_DATASET``, ``_RUN_ID``, ``_STATUS``, ``_ERROR`` and ``_REPORT`` hold what most commands need. A command
    that cannot be started, fails or takes too long is told as a note: the run stays what it was.
    """
    said = {
        "DATASET": report.dataset,
        "RUN_ID": report.run_id,
        "STATUS": report.status,
        "ERROR": report.error,
        "REPORT": report.page,
    }
    environment = os.environ | {f"GRISTMILL_{name}": value.replace("\0", "") for name, value in said.items()}
    name = catalog.on_failure[0]
    try:
        process = subprocess.Popen(  # noqa: S603  # the catalog's owner names the command, and no shell reads it
            catalog.on_failure,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=catalog.folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        events.note(f"on_failure: {name} cannot be started: {error.strerror or error}")
        return
    with process:
        try:
            output, _ = process.communicate(json.dumps(facts(report)).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_GRACE_SECONDS)
            events.note(f"on_failure: {name} took longer than {seconds:g} s and was killed")
            return
    if process.returncode:
        tail = output.decode(errors="replace").strip()[-_SHOWN:]
        events.note(f"on_failure: {name} ended with {process.returncode}{': ' + tail if tail else ''}")
