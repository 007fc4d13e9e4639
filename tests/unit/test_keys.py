"""Code digests and recipes: what changes a key and what does not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pipeline import keys

PACKAGE = {
    "__init__.py": "",
    "step.py": "from grain.helper import scale\n\n\ndef run(x):\n    return scale(x)\n",
    "helper.py": "from . import constants\n\n\ndef scale(x):\n    return x * constants.FACTOR\n",
    "constants.py": "FACTOR = 2\n",
    "unrelated.py": "SIZE = 1\n",
}


def digest_in_new_process(folder: Path, seed: str = "0", module: str = "grain.step") -> str:
    code = f"from pipeline.keys import code_digest; print(code_digest({module!r}).hex())"
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": f"{folder}:{root}", "PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write(tmp_path / "one")


def write(folder: Path) -> Path:
    (folder / "grain").mkdir(parents=True)
    for name, text in PACKAGE.items():
        (folder / "grain" / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("step.py", "    return scale(x)", '    """Scale it."""\n    # said twice\n    return (scale(\n        x))'),
        ("helper.py", "def scale(x):", "def scale(\n    x,\n):"),
        ("unrelated.py", "SIZE = 1", "SIZE = 2"),
    ],
    ids=["docstring, comment, layout", "layout of a helper", "a module that is not imported"],
)
def test_digest_ignores(package: Path, name: str, before: str, after: str) -> None:
    first = digest_in_new_process(package)
    file = package / "grain" / name
    file.write_text(file.read_text().replace(before, after))
    assert digest_in_new_process(package) == first


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("step.py", "scale(x)", "scale(x) + 1"),
        ("helper.py", "x * constants", "x + constants"),
        ("constants.py", "FACTOR = 2", "FACTOR = 3"),
        ("__init__.py", "", "import grain.unrelated\n"),
    ],
    ids=["the step", "a helper", "a constant two imports away", "the package's __init__"],
)
def test_digest_sees(package: Path, name: str, before: str, after: str) -> None:
    first = digest_in_new_process(package)
    file = package / "grain" / name
    file.write_text(file.read_text().replace(before, after, 1) if before else after)
    assert digest_in_new_process(package) != first


def test_digest_is_the_same_in_another_folder_and_with_another_hash_seed(package: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "elsewhere" / "deeper")
    assert digest_in_new_process(package, seed="1") == digest_in_new_process(other, seed="4242")


def test_digest_follows_lazy_imports_and_literal_import_module(package: Path) -> None:
    step = package / "grain" / "step.py"
    step.write_text(
        "from importlib import import_module\n\n\ndef run(x):\n    return import_module('grain.unrelated')\n"
    )
    first = digest_in_new_process(package)
    (package / "grain" / "unrelated.py").write_text("SIZE = 2\n")
    assert digest_in_new_process(package) != first


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(LookupError, match="_thread: no Python source found"):
        keys.code_digest("_thread")


@dataclass(frozen=True, kw_only=True)
class Twist:
    name: ClassVar[str] = "test.twist"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("numpy",)
    angle: float = 1.0


def recipe(**options: Any) -> dict[str, Any]:
    chain: Any = SimpleNamespace(steps=(Twist(**options),), augment=())
    return keys.recipe(chain)


def test_explain_names_the_option_and_both_values() -> None:
    assert keys.explain(recipe(), recipe(angle=2.5)) == "test.twist angle 1.0 -> 2.5"


def test_explain_names_code_library_weights_and_steps() -> None:
    old, new = recipe(), recipe()
    new["steps"][0]["code"] = "other"
    new["steps"][0]["libraries"] = {"numpy": "99"}
    new["steps"][0]["weights"] = "ab"
    found = keys.explain(old, new)
    assert "test.twist code changed" in found
    assert "-> 99" in found
    assert "weights changed" in found
    longer = old | {"steps": [*old["steps"], *old["steps"]]}
    assert keys.explain(old, longer) == "steps test.twist -> test.twist + test.twist"


def test_an_unknown_library_is_an_error() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(Twist):
        numerics: ClassVar[tuple[str, ...]] = ("no-such-distribution",)

    with pytest.raises(LookupError, match="no installed distribution is called 'no-such-distribution'"):
        keys.recipe(SimpleNamespace(steps=(Odd(),), augment=()))  # type: ignore[arg-type]


def test_digest_tells_where_parts_end() -> None:
    assert keys.digest(b"ab", b"c") != keys.digest(b"a", b"bc")
    assert keys.digest_json({"a": 1, "b": 2}) == keys.digest_json({"b": 2, "a": 1})
