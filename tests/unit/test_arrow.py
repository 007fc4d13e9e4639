"""Workers do without pandas, which pyarrow would import for its first array; what runs steps of others does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_arrays_are_made_without_pandas_and_turned_into_its_frames_all_the_same() -> None:
    assert said("import sys, pyarrow as pa; pa.array(['a']); print('pandas' in sys.modules)") == "True"
    found = said(
        "import sys, pyarrow as pa\n"
        "from pipeline.arrow import spare_pandas\n"
        "spare_pandas()\n"
        "table = pa.table({'a': ['x', None], 'b': [[1.5], []]})\n"
        "print('pandas' in sys.modules)\n"
        "print(table.to_pandas()['a'].isna().tolist())"
    )
    assert found.splitlines() == ["False", "[False, True]"]


def test_a_process_that_has_pandas_is_left_as_it_is() -> None:
    found = said(
        "import pandas as pd, pyarrow as pa\n"
        "from pipeline.arrow import spare_pandas\n"
        "spare_pandas()\n"
        "print(pa.array(pd.Series([1.0, float('nan')])).null_count)"
    )
    assert found == "1"


def test_the_command_leaves_it_to_the_steps_that_may_run_in_it(tmp_path: Path) -> None:
    (tmp_path / "data_catalog.yaml").write_text("version: 1\nstore: store\ndatasets: {}\n")
    found = said(
        "import sys\n"
        "from flows.cli import main\n"
        f"sys.argv = ['gristmill', 'status', '--catalog', {str(tmp_path / 'data_catalog.yaml')!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "import pandas as pd, pyarrow as pa\n"
        "print(pa.array(pd.Series([1.0, float('nan')])).null_count)"
    )
    assert found.splitlines()[-1] == "1"


def test_help_of_a_command_imports_none_of_the_heavy_libraries() -> None:
    found = said(
        "import sys\n"
        "from flows.cli import main\n"
        "sys.argv = ['gristmill', 'run', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pyarrow', 'pandas', 'numpy', 'torch', 'prefect', 'distributed'} & set(sys.modules)))"
    )
    assert found.splitlines()[-1] == "[]"
