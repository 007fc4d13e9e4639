"""What a step logs in the process that computes it is heard where the run is, within bounds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from pipeline.execute.child import _Handler

if TYPE_CHECKING:
    from conftest import World


def test_warnings_of_steps_reach_the_process_of_the_run(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.edit(world.catalog, "kind: serial", "kind: dask")
    world.edit(world.steps, "import numpy as np", "import logging\n\nimport numpy as np")
    hook = "    def __call__(self, batch, device):\n        return [\n            FeatureSequence.from_rows(scale("
    say = hook.replace(
        "        return [", '        logging.getLogger("mine").warning("saw %d", len(batch))\n        return ['
    )
    world.edit(world.steps, hook, say)
    with caplog.at_level(logging.WARNING):
        world.run()
    said = [record for record in caplog.records if record.name == "mine"]
    assert said, [record.name for record in caplog.records]
    assert said[0].getMessage().startswith("saw ")
    assert said[0].levelname == "WARNING"


def test_a_step_that_logs_without_end_is_cut_short() -> None:
    class Teller:
        said: list[tuple[str, str, int, str]] = []  # noqa: RUF012  # one test, one teller

        def tell(self, *message: str) -> None:
            self.said.append(message)  # type: ignore[arg-type]

    handler = _Handler(Teller())  # type: ignore[arg-type]
    for i in range(500):
        handler.emit(logging.LogRecord("mine", logging.WARNING, "", 0, "number %d", (i,), None))
    assert len(Teller.said) == _Handler.MOST
    assert Teller.said[0] == ("log", "mine", logging.WARNING, "number 0")
    assert "is left out" in Teller.said[-1][3]
