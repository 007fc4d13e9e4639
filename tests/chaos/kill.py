"""Kills runs at random instants, and looks at what is left: ``python tests/chaos/kill.py --kills 100``.

A small data set (images, one extractor that takes its time and writes down what it computes) is brought up to date,
from nothing or after an edit, and killed (SIGKILL, the whole process group) at a random instant, before a random file
operation of a random stage, or in a Dask worker alone; ``gc`` likewise. After each kill

- readers see the snapshot before or the snapshot after, whole, and ``verify`` finds no fault in it;
- the next run completes, and its files are those of an undisturbed run, byte for byte;
- samples of shards that were finished are not computed again;
- ``gc`` leaves nothing on disk that the snapshot does not need.

Besides, two runs are started at once, and one meets a limit on the size of files as it would meet a full disk. This
process forks one child for each step and never opens a store itself: the log's library must not be used after a fork.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from victims import ADDED, CHANGED, SAMPLES, collect_garbage, edit, inspect, make, run

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from features.errors import GristmillError  # noqa: E402  # run as a script, the repository is not on the path before

KINDS = {
    "fresh, by operation": 4,
    "update, by operation": 4,
    "fresh, by time": 3,
    "update, by time": 3,
    "gc, by operation": 4,
    "dask driver, by time": 1,
    "dask worker, by progress": 1,
}
"""What is killed, and when -> how often, beside the others."""
QUICK = ("fresh, by operation", "update, by time", "gc, by operation", "dask worker, by progress")


class Child:
    """A function at work in a forked process that leads its own process group."""

    def __init__(self, function: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> None:
        descriptor, name = tempfile.mkstemp(suffix=".json")
        os.close(descriptor)
        self._answer = Path(name)
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            status = 2
            try:
                self._answer.write_text(json.dumps(function(*arguments, **options)))
                status = 0
            except GristmillError as error:
                self._answer.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
                status = 1
            except BaseException:  # noqa: BLE001  # told to the parent, whatever it is
                self._answer.write_text(json.dumps({"error": traceback.format_exc()}))
            finally:
                os._exit(status)

    def kill(self) -> None:
        """Kill the whole group, if it is there."""
        os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, dict[str, Any]]:
        """The exit status (negative: the signal that killed it) and the answer."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        text = self._answer.read_text()
        self._answer.unlink()
        return code, json.loads(text) if code >= 0 and text else {}


def ask(function: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """The answer of a function that must not fail."""
    code, answer = Child(function, *arguments, **options).wait()
    check(code == 0, f"{function.__name__} ended with {code}: {answer.get('error')}")
    return answer


class BrokenPromiseError(Exception):
    """What must hold after a kill does not hold."""


def check(holds: bool, otherwise: str) -> None:
    """Raise ``BrokenPromiseError`` unless ``holds``."""
    if not holds:
        raise BrokenPromiseError(otherwise)


@dataclass
class Template:
    """A data set before a run, what an undisturbed run makes of it, and how that run went."""

    folder: Path
    before: dict[str, Any]
    after: dict[str, Any]
    went: dict[str, Any]
    rows: int


@dataclass
class Figures:
    """What happened in all trials."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Trials that ended before the kill."""
    published: int = 0
    """Kills after the commit."""
    resumed: int = 0
    computed: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON document."""
        return {
            "kills": sum(self.kills.values()),
            "by kind": dict(self.kills),
            "ended before the kill": self.missed,
            "killed after the commit": self.published,
            "rows resumed": self.resumed,
            "rows computed by the second run": self.computed,
            "lost, doubled or half-written": 0,
            "seconds": round(self.seconds, 1),
        }


class Chaos:
    """Trials on copies of prepared data sets."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.figures = Figures()
        fresh, update, old = folder / "fresh", folder / "update", folder / "gc"
        make(fresh)
        shutil.copytree(fresh, update)
        ask(run, update)
        edit(update)
        self.templates = {
            "fresh": self._template(fresh, SAMPLES),
            "update": self._template(update, CHANGED + ADDED),
        }
        shutil.copytree(folder / "update-done", old)
        (old / "store/grain/feature=slow/shard-000099-0000-orphan.parquet").write_bytes(b"half")
        done = folder / "gc-done"
        shutil.copytree(old, done)
        went = ask(collect_garbage, done)
        self.templates["gc"] = Template(old, ask(inspect, old), ask(inspect, done), went, 0)

    def _template(self, folder: Path, rows: int) -> Template:
        done = folder.with_name(f"{folder.name}-done")
        shutil.copytree(folder, done)
        (done / "calls.log").unlink(missing_ok=True)
        went = ask(run, done)
        check(self._calls(done) == rows, f"{folder.name}: an undisturbed run computes {self._calls(done)}, not {rows}")
        return Template(folder, ask(inspect, folder), ask(inspect, done), went, rows)

    def _calls(self, folder: Path) -> int:
        log = folder / "calls.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def _copy(self, template: Template) -> Path:
        folder = self.folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template.folder, folder)
        (folder / "calls.log").unlink(missing_ok=True)
        return folder

    def _instant(self, template: Template) -> int:
        """A file operation of a stage, both at random."""
        marks = template.went["marks"]
        stages = [(first, last) for first, last in pairwise(marks) if last > first]
        first, last = self.random.choice(stages)
        return self.random.randrange(first, last)

    def trial(self, kind: str) -> None:
        """One kill of this kind, and all that must hold after it."""
        what, how = kind.split(", ")
        name = what if what in self.templates else self.random.choice(["fresh", "update"])
        template = self.templates[name]
        folder = self._copy(template)
        if what == "gc":
            code, _ = Child(collect_garbage, folder, fatal=self._instant(template)).wait()
        elif how == "by operation":
            code, _ = Child(run, folder, fatal=self._instant(template)).wait()
        elif how == "by time":
            engine = "dask" if what == "dask driver" else "serial"
            child = Child(run, folder, engine)
            if engine == "dask":  # most of the time goes into starting workers: count from the first sample
                self._wait_for_calls(folder, child, 1)
            time.sleep(self.random.uniform(0, template.went["seconds"]))
            child.kill()
            code, _ = child.wait()
        else:
            self._worker(folder, template)
            self.figures.kills[kind] += 1
            return
        if code == -signal.SIGKILL:
            self.figures.kills[kind] += 1
        else:
            check(code == 0, f"the run ended with {code} before it was killed")
            self.figures.missed += 1
        self._aftermath(folder, template)

    def _wait_for_calls(self, folder: Path, child: Child, count: int) -> None:
        deadline = time.monotonic() + 120
        while self._calls(folder) < count:
            check(time.monotonic() < deadline, f"child {child.pid} computes nothing")
            time.sleep(0.002)

    def _worker(self, folder: Path, template: Template) -> None:
        """Kill a Dask worker: the run itself must go on and complete."""
        import psutil

        child = Child(run, folder, "dask")
        self._wait_for_calls(folder, child, self.random.randrange(1, template.rows))
        workers = [
            one for one in psutil.Process(child.pid).children(recursive=True) if "spawn_main" in str(one.cmdline())
        ]
        if workers:
            self.random.choice(workers).kill()
        code, answer = child.wait()
        check(code == 0, f"a dead worker failed the run: {answer.get('error')}")
        self._equal(folder, template, answer["report"])

    def _aftermath(self, folder: Path, template: Template) -> None:
        left = ask(inspect, folder)
        check(left["files"] in (template.before["files"], template.after["files"]), "readers see half a run")
        check(not left["faults"], f"readers see damaged files: {left['faults']}")
        published = left["files"] == template.after["files"] != template.before["files"]
        self.figures.published += published
        before = self._calls(folder)
        report = ask(run, folder)["report"]
        calls = self._calls(folder) - before
        expected = 0 if published else template.rows - left["finished"]
        check(calls == expected, f"computed {calls} samples after the kill, of which {expected} were not finished")
        check(published or report["resumed"] == left["finished"], f"resumed {report['resumed']} of {left['finished']}")
        self.figures.resumed += report["resumed"]
        self.figures.computed += calls
        self._equal(folder, template, report)

    def _equal(self, folder: Path, template: Template, report: dict[str, Any]) -> None:
        """The published files are those of an undisturbed run, the counts add up, and gc leaves nothing else."""
        ask(collect_garbage, folder)
        found = ask(inspect, folder)
        check(found["files"] == template.after["files"], "the published rows are not those of an undisturbed run")
        check(not found["faults"], f"damaged files: {found['faults']}")
        check(not found["needless"], f"gc has left {found['needless']}")
        counts = report["features"]["slow"]
        total = counts["done"] + counts["unchanged"] + counts["quarantined"] + counts["deferred"]
        check(counts["samples_in"] == total == len(list((folder / "media").iterdir())), f"counts: {counts}")

    def two_at_once(self) -> None:
        """Two runs started at the same moment: one computes, the other is refused or finds nothing to do."""
        template = self.templates["fresh"]
        folder = self._copy(template)
        endings = [child.wait() for child in [Child(run, folder) for _ in range(2)]]
        codes = sorted(code for code, _ in endings)
        check(codes in ([0, 0], [0, 1]), f"two runs ended with {codes}: {endings}")
        for code, answer in endings:
            check(code == 0 or answer["error"].startswith("StoreError"), f"the second run: {answer.get('error')}")
        check(self._calls(folder) == template.rows, f"two runs computed {self._calls(folder)} samples")
        self._equal(folder, template, next(answer["report"] for code, answer in endings if code == 0))

    def full_disk(self, engine: str) -> None:
        """No file can grow beyond a limit: a clear error, nothing published; with room again the run completes."""
        template = self.templates["update"]
        folder = self._copy(template)
        code, answer = Child(run, folder, engine, largest=16_000).wait()
        check(code == 1, f"{engine}: a full disk ended the run with {code}: {answer.get('error')}")
        check("File too large" in answer["error"], f"{engine}: a full disk is told as {answer['error']}")
        self._aftermath(folder, template)


def main() -> int:
    """Run the trials and print the figures; exit 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many trials")
    parser.add_argument("--seed", type=int, default=0, help="another seed kills at other instants")
    parser.add_argument("--quick", action="store_true", help="one kill each of four kinds")
    options = parser.parse_args()
    import torch  # noqa: F401

    import pipeline.execute.task  # imported before the forks, so that each need not
    import pipeline.run
    import pipeline.store.gc
    import pipeline.store.verify  # noqa: F401

    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gristmill-chaos-") as folder:
        chaos = Chaos(Path(folder), options.seed)
        kinds = QUICK if options.quick else chaos.random.choices(list(KINDS), list(KINDS.values()), k=options.kills)
        for number, kind in enumerate(kinds):
            try:
                chaos.trial(kind)
            except BrokenPromiseError as error:
                sys.stderr.write(f"trial {number} ({kind}, seed {options.seed}): {error}\n")
                return 1
        try:
            chaos.two_at_once()
            for engine in ("serial",) if options.quick else ("serial", "dask"):
                chaos.full_disk(engine)
        except BrokenPromiseError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    chaos.figures.seconds = time.monotonic() - begun
    sys.stdout.write(json.dumps(chaos.figures.as_json(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
