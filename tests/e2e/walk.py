"""The newcomer's walk of docs/walk.md: its commands, run one after the other, and their output.

``python tests/e2e/walk.py`` runs them and writes their output into the page; ``test_walk.py`` compares.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/walk.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
NOISE = (
    (r"/\S*/(?=clips|gristmill-demo|store/|data_catalog|site-packages)", ""),  # where the folder lies, and Python
    (r"\d{8}T\d{6}-[0-9a-f]+", "RUN"),
    (r"(shard-\d+)-[0-9a-f]+-[0-9a-f]+", r"\1"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d)?", "TIME"),
    (r"ok +device: .*", "ok device"),
    (r"_models/\d+-[0-9a-f]+", "MODELS"),
    (r"[━─┏┓┗┛┡┩├┤└┘┬┴┼╇╈┃│┳┻╋╞╡═]+", "|"),
    (r"\b\d[\d,]*(\.\d+)+(\+\w+)?", "N"),
    (r"\b\d{1,3}(,\d{3})+\b", "N"),
    (r"[+-]N\b", "N"),
    (r"\b\d[\d,]* (s|ms|bytes|kB|MB|GB|cores?|workers?)\b", r"N \1"),
    (r"N (core|worker)s\b", r"N \1"),
    (r"[ \t]+", " "),
)
PROGRESS = r"(?m)^[\w. ]+: .*\d/s(?=[,;\n]).*\n(\d\.\d+\n|score \d\.\d+\n)?"
STAGE = r"[\w. ]+: (.*, )?N s$"
"""Lines that a stage leaves when it took a second or more."""


def blocks(page: str) -> list[tuple[list[str], str]]:
    """Commands (lines that begin with ``$``) of each console block, with the block as it is written."""
    found = [match.group(1) for match in BLOCK.finditer(page)]
    return [([line[2:] for line in text.splitlines() if line.startswith("$ ")], text) for text in found]


def walk(folder: Path, commands: list[str]) -> str:
    """Run the commands in ``folder``; return them with what they print, as a terminal would show it."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / ".prefect"),
        "COLUMNS": "100",
        "TZ": "UTC",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # people have no such thing set, and Python starts slowly with it
    said = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = re.sub(PROGRESS, "", done.stdout)
        lines = [line.rstrip() for line in told.splitlines()]
        said.append("\n".join([f"$ {command}", *lines]) + "\n")
        if done.returncode:
            said.append(f"(exit code {done.returncode})\n")
    return "".join(said).replace(f"{folder}/", "/home/you/").replace(sys.prefix, "/home/you/gristmill/.venv")


def normalised(text: str) -> list[str]:
    """The lines without what differs from one walk to the next: times, ids, speeds, the width of tables."""
    for pattern, instead in NOISE:
        text = re.sub(pattern, instead, text)
    lines = (line.strip(" |") for line in text.splitlines())
    return [line for line in lines if line and not re.match(STAGE, line)]


def prepare(folder: Path) -> None:
    """Write what the demo leaves that the walk needs: its pictures and captions, and videos that hold nothing."""
    from pipeline.demo.captions import srt
    from pipeline.demo.pictures import jpeg
    from pipeline.demo.truth import make_truth

    for truth in make_truth(96, 0):
        for suffix, content in {".mp4": b"", ".jpg": jpeg(truth, 0), ".srt": srt(truth, 0)}.items():
            path = folder / f"gristmill-demo/media/{truth.sample_id}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def main() -> None:
    """Walk, the demo too, and write the output into the page."""
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        for commands, text in blocks(page):
            begun = time.monotonic()
            said = walk(Path(folder), commands)
            sys.stderr.write(f"{time.monotonic() - begun:5.1f} s  {'; '.join(commands)}\n")
            page = page.replace(f"```console\n{text}```", f"```console\n{said}```", 1)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
