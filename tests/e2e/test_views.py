"""Augmented views of training samples: seeded, planned by themselves, stored beside the samples, never for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from features.errors import CatalogError
from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import published, run_dataset
from pipeline.store.verify import verify

if TYPE_CHECKING:
    from conftest import World

DIM = '''

@dataclass(frozen=True, kw_only=True)
class Dim:
    """Darker by a share of at most ``most``."""

    name: ClassVar[str] = "dim"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    most: float = 0.5

    def augment(self, batch, seeds, device):
        from features.random import generator
        from features.types import Image

        return [
            Image(pixels=np.uint8(image.pixels * (1 - self.most * generator(seed).random())), span=image.span)
            for image, seed in zip(batch, seeds, strict=True)
        ]
'''


@pytest.fixture
def viewed(world: World) -> World:
    world.steps.write_text(world.steps.read_text() + DIM)
    edit(world, '"{m}:Brightness"}}', '"{m}:Brightness", views: {{count: 3, steps: ["{m}:Dim"]}}}}')
    return world


def edit(world: World, old: str, new: str) -> None:
    text = world.catalog.read_text()
    old, new = (part.format(m=world.module) for part in (old, new))
    assert old in text
    world.catalog.write_text(text.replace(old, new))


def run(world: World, engine: str = "serial", **options: bool) -> RunReport:
    return run_dataset(load_catalog(world.catalog), "grain", engine=engine, **options)  # type: ignore[arg-type]


def views(world: World) -> dict[tuple[str, int], bytes]:
    rows = published(load_catalog(world.catalog), "grain").read("views.brightness").to_pylist()
    return {(row["sample_id"], row["view"]): np.float32(row["values"]).tobytes() for row in rows}


def test_training_samples_get_their_views_and_no_other_sample_does(viewed: World) -> None:
    first = run(viewed)
    catalog = load_catalog(viewed.catalog)
    snapshot = published(catalog, "grain")
    training = {row["sample_id"] for row in snapshot.samples.to_pylist() if row["split"] == "train"}
    assert 0 < len(training) < 12
    assert set(views(viewed)) == {(sample, view) for sample in training for view in (1, 2, 3)}
    assert len(set(views(viewed).values())) > 2 * len(training)
    counts = first.features["views.brightness"]
    assert (counts.samples_in, counts.done) == (len(training), len(training))
    assert len(snapshot.read("brightness")) == 12
    assert "views.brightness" not in snapshot.aligned
    assert not verify(snapshot).faults
    second = run(viewed)
    assert second.computed == 0
    assert not second.published
    before = views(viewed)
    run(viewed, "dask", from_nothing=True)
    assert views(viewed) == before, "whatever the engine"


def test_an_edit_of_the_views_computes_the_views_alone(viewed: World) -> None:
    run(viewed)
    before = views(viewed)
    edit(viewed, 'count: 3, steps: ["{m}:Dim"]', 'count: 3, seed: 1, steps: ["{m}:Dim"]')
    report = run(viewed)
    assert {name: counts.done for name, counts in report.features.items() if counts.done} == {
        "views.brightness": len(before) // 3
    }
    assert report.reasons["views.brightness"][0][0] == "views seed 0 -> 1"
    assert views(viewed).keys() == before.keys()
    assert views(viewed) != before
    image = next(sample for sample, _ in before)
    (viewed.media / f"{image}.png").write_bytes((viewed.media / f"{image}.png").read_bytes() + b"\0")
    changed = run(viewed)
    assert changed.features["views.brightness"].done == 1
    edit(viewed, 'seed: 1, steps: ["{m}:Dim"]', 'seed: 1, splits: [train, validation, test], steps: ["{m}:Dim"]')
    run(viewed)
    assert len(views(viewed)) == 36, "every split, because the catalog says so"
    edit(viewed, ', views: {{count: 3, seed: 1, splits: [train, validation, test], steps: ["{m}:Dim"]}}', "")
    gone = run(viewed)
    assert gone.computed == 0
    assert "views.brightness" not in published(load_catalog(viewed.catalog), "grain").features


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("{{count: 0, steps: [x]}}", "views.count: got 0"),
        ("{{count: 2, steps: []}}", "views.steps: got []"),
        ("{{count: 2, steps: ['{m}:Words']}}", "words is not an augmentation"),
        ("{{count: 2, steps: [image.cnn]}}", "'image.cnn' is an extractor; allowed here"),
    ],
)
def test_views_that_make_no_sense_are_told(viewed: World, views: str, message: str) -> None:
    edit(viewed, '{{count: 3, steps: ["{m}:Dim"]}}', views)
    with pytest.raises(CatalogError) as caught:
        load_catalog(viewed.catalog)
    assert message in str(caught.value)


def test_names_that_the_store_needs_are_refused(world: World) -> None:
    edit(world, "words:", "views.words:")
    with pytest.raises(CatalogError, match=r"allowed: a name that does not begin with 'views\.'"):
        load_catalog(world.catalog)
