"""The catalog: what data sets there are and what is to be made of them. docs/catalog.md is the reference.

``load_catalog`` finds everything that is wrong with a catalog at once, each with its line, before anything is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from features.errors import CatalogError
from features.registry import AUGMENT, EXTRACTORS, PREPARE
from features.types import Stream
from pipeline.catalog.align_checks import align_problems, unknown_policies
from pipeline.catalog.align_models import Align
from pipeline.catalog.data_set import Catalog, DataSet
from pipeline.catalog.models import CatalogFile, DataSetFile, FeatureSpec, ManifestSource, Source
from pipeline.catalog.problems import Place, Problem, did_you_mean, faults, file_problem, listed, shown
from pipeline.catalog.shape import key_problem
from pipeline.catalog.steps import StepFaultError, build_step
from pipeline.catalog.yaml_lines import Document
from pipeline.chain import Chain, ChainError
from pipeline.store.shard import ALIGNED_PREFIX, VIEWS_PREFIX

_CURE = "cure: `gristmill init DIR` writes one"
_SCHEMES = "a folder, or a URL such as s3://bucket/prefix"
_M = TypeVar("_M")
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def load_catalog(path: Path) -> Catalog:
    """Read and check the catalog at ``path``; build every feature.

    Raises ``CatalogError`` with all problems at once, one line each: ``file:line: place: message``.
    """
    path = Path(path).absolute()
    loader = _Loader(path, Document(_read(path)))
    catalog = loader.load()
    if catalog is None:
        raise CatalogError(loader.told())
    return catalog


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise CatalogError([f"{path}: no such file; {_CURE}"]) from None
    except IsADirectoryError:
        inside = path / "data_catalog.yaml"
        cure = f"cure: name the file, {inside}" if inside.is_file() else _CURE
        raise CatalogError([f"{path}: a folder, allowed: a catalog file; {cure}"]) from None
    except OSError as error:
        raise CatalogError([f"{path}: cannot be read: {error.strerror}; cure: check the path and its rights"]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{path.name}:{line}: byte {error.start} is not UTF-8; cure: save the file as UTF-8"
        raise CatalogError([message]) from None
    if not text.strip():
        raise CatalogError([f"{path}: empty; {_CURE}"])
    return text


class _Loader:
    """Reads one catalog, collecting problems instead of stopping at the first."""

    def __init__(self, path: Path, document: Document) -> None:
        self._path = path
        self._folder = path.parent
        self._document = document
        self._data = document.data
        self._problems = list(document.problems)

    def told(self) -> list[str]:
        """All problems in order of lines."""
        ordered = sorted(self._problems, key=lambda problem: problem.line or 0)
        return list(dict.fromkeys(problem.told(self._path.name) for problem in ordered))

    def load(self) -> Catalog | None:
        """The catalog, or ``None`` when there are problems."""
        if self._data is None and self._problems:
            return None
        if not isinstance(self._data, dict):
            self._add((), f"got {shown(self._data)}, allowed: a mapping that begins with version: 1; {_CURE}")
            return None
        written = self._written()
        store = self._place_of(self._data.get("store"), ("store",))
        if store is not None and "://" not in store and Path(store).exists() and not Path(store).is_dir():
            self._add(("store",), f"{store} is a file, allowed: {_SCHEMES}")
        raw = self._data.get("datasets")
        datasets = {
            name: self._data_set(name, entry, store)
            for name, entry in (raw.items() if isinstance(raw, dict) else ())
            if isinstance(entry, dict)
        }
        if self._problems or written is None or store is None:
            return None
        built = {name: data_set for name, data_set in datasets.items() if data_set is not None}
        return Catalog(
            path=self._path,
            store=store,
            engine=written.engine,
            datasets=built,
            metrics=None if written.metrics is None else self._folder / written.metrics,
            on_failure=written.on_failure or (),
        )

    def _add(self, place: Place, message: str) -> None:
        self._problems.append(Problem(self._document.line(place), place, message))

    def _written(self) -> CatalogFile | None:
        """Check the shape of the whole file."""
        try:
            return CatalogFile.model_validate_json(json.dumps(self._data))
        except ValidationError as error:
            others: list[ErrorDetails] = []
            for detail in error.errors(include_url=False):
                message = key_problem(detail)
                if message is None:
                    others.append(detail)
                else:
                    self._add(self._where(detail["loc"]), message)
            for place, message in faults(others, lambda detail: self._where(detail["loc"])):
                self._add(place, message)
        return None

    def _where(self, loc: tuple[int | str, ...]) -> Place:
        """The place in the file of a pydantic location, without the names of members of unions."""
        place: list[str | int] = []
        value: Any = self._data
        for depth, part in enumerate(loc):
            if depth == 3 and loc[0] == "datasets" and loc[2] == "source":
                continue
            items = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
            if part in items:
                place.append(part)
                value = items[part]
        return tuple(place)

    def _data_set(self, name: str, raw: dict[str, Any], store: str | None) -> DataSet | None:
        """Check what pydantic cannot see. Parts whose shape is wrong have been told of and are left out."""
        place: Place = ("datasets", name)
        root = self._place_of(raw.get("root"), (*place, "root"))
        excluded: tuple[str, ...] = ()
        if root is not None:
            root = self._checked_root(root, (*place, "root"))
        if root is not None:
            excluded = self._excluded(root, store, place)
        source = _quietly(_SOURCE, raw.get("source"))
        if root is not None and isinstance(source, ManifestSource) and "://" not in root:
            problem = file_problem(root, source.path, f"a {source.kind} file")
            if problem is not None:
                self._add((*place, "source", "path"), problem)
        features = raw.get("features")
        chains: dict[str, Chain] = {}
        view_splits: dict[str, tuple[str, ...]] = {}
        for feature, spec in features.items() if isinstance(features, dict) else ():
            chain = self._chain(feature, spec, (*place, "features", feature))
            if chain is not None:
                chains[feature] = chain
                views = self._views(chain, spec, (*place, "features", feature, "views"))
                if views is not None:
                    chains[views[0].name], view_splits[views[0].name] = views
                if source is not None:
                    self._check_stream(chain, source, (*place, "features", feature))
        align = raw.get("align")
        found = list(unknown_policies(align, features))
        aligned = None if align is None else _quietly(Align, align)
        if aligned is not None and source is not None and isinstance(features, dict):
            originals = {name: chain for name, chain in chains.items() if name in features}
            found += align_problems(aligned, originals, features, source, root)
        for inside, message in found:
            self._add((*place, "align", *inside), message)
        training = raw.get("train")
        encoders = training.get("encoders") if isinstance(training, dict) else None
        if isinstance(encoders, dict) and isinstance(features, dict):
            for feature in encoders.keys() - features.keys():
                message = f"no feature {feature!r} in this data set; allowed: {listed(features)}"
                self._add((*place, "train", "encoders", feature), message + did_you_mean(str(feature), features))
        written = _quietly(DataSetFile, raw)
        if self._problems or written is None or root is None:
            return None
        return DataSet(
            name=name,
            root=root,
            source=written.source,
            splits=written.splits,
            features=chains,
            align=written.align,
            fit=written.fit,
            schedule=written.schedule,
            train=written.train,
            max_failed=written.max_failed,
            shard_samples=written.shard_samples,
            report=written.report,
            excluded=excluded,
            view_splits=view_splits,
        )

    def _place_of(self, written: Any, place: Place) -> str | None:
        """An absolute path or a URL from what is written."""
        if not isinstance(written, str) or not written:
            return None
        text = written.removeprefix("file://")
        if "\0" in text:
            self._add(place, f"got {shown(text)}, allowed: {_SCHEMES}")
            return None
        if "://" not in text:
            return os.path.realpath(self._folder / text)
        if "::" in text:
            self._add(place, f"got {shown(text)}: chained URLs are not offered, allowed: {_SCHEMES}")
            return None
        return text.rstrip("/")

    def _checked_root(self, root: str, place: Place) -> str | None:
        """The root, unless it cannot be one. It need not be there: that matters where media are read, not features."""
        if "://" in root:
            import fsspec

            scheme = root.partition("://")[0]
            try:
                fsspec.get_filesystem_class(scheme)
            except ValueError:
                self._add(place, f"unknown kind of URL {scheme + '://'!r}, allowed: {_SCHEMES}")
                return None
            except ImportError as error:
                cure = "pip install 'gristmill[s3]'" if scheme in ("s3", "s3a") else "install that package"
                self._add(place, f"{scheme}:// cannot be read here: {error}; cure: {cure}")
                return None
        elif Path(root).exists() and not Path(root).is_dir():
            self._add(place, f"{root} is a file, allowed: {_SCHEMES}")
            return None
        return root

    def _excluded(self, root: str, store: str | None, place: Place) -> tuple[str, ...]:
        if store is None:
            return ()
        if (root + "/").startswith(store.rstrip("/") + "/"):
            message = f"root lies in the store ({store}), whose files are no media; cure: keep them apart"
            self._add((*place, "root"), message)
        elif store.startswith(root.rstrip("/") + "/"):
            return (store.removeprefix(root).strip("/"),)
        return ()

    def _chain(self, name: str, raw: Any, place: Place) -> Chain | None:
        spec = FeatureSpec() if raw is None else _quietly(FeatureSpec, raw)
        if spec is None:
            return None
        before = len(self._problems)
        for prefix in (ALIGNED_PREFIX, VIEWS_PREFIX):
            if name.startswith(prefix):
                self._add(place, f"got the name {name!r}, allowed: a name that does not begin with {prefix!r}")
        prepare = self._steps(spec.prepare, PREPARE, (*place, "prepare"))
        at: Place = place if spec.extractor is None else (*place, "extractor")
        extractor = self._step(spec.extractor or name, spec.options, (*place, "options"), EXTRACTORS, at)
        if len(self._problems) > before:
            return None
        try:
            return Chain(name, tuple(prepare), extractor)
        except ChainError as error:
            self._add(place, str(error))
            return None

    def _steps(self, written: Iterable[Any], table: dict[str, str], place: Place) -> list[Any]:
        """The steps of a list of names, or of names with options."""
        return [
            self._step(*entry, table, (*place, index))
            for index, item in enumerate(written)
            if (entry := self._entry(item, (*place, index))) is not None
        ]

    def _views(self, chain: Chain, raw: Any, place: Place) -> tuple[Chain, tuple[str, ...]] | None:
        """The chain of a feature's views, where it has any, and the splits that get them."""
        spec = FeatureSpec() if raw is None else _quietly(FeatureSpec, raw)
        if spec is None or spec.views is None:
            return None
        before = len(self._problems)
        steps = self._steps(spec.views.steps, AUGMENT, (*place, "steps"))
        if len(self._problems) > before:
            return None
        views = spec.views
        try:
            made = Chain(
                VIEWS_PREFIX + chain.name,
                chain.prepare,
                chain.extractor,
                augment=tuple(steps),
                count=views.count,
                seed=views.seed,
            )
        except ChainError as error:
            self._add(place, str(error))
            return None
        return made, views.splits

    def _entry(self, written: Any, place: Place) -> tuple[str, Mapping[str, Any], Place] | None:
        """Name, options and the place of the options of one item of ``prepare``."""
        if isinstance(written, str):
            return written, {}, place
        if isinstance(written, dict) and len(written) == 1:
            ((name, options),) = written.items()
            if options is None:
                return name, {}, place
            if isinstance(options, dict):
                return name, options, (*place, name)
            self._add((*place, name), f"got {shown(options)}, allowed: a mapping of options (option: value)")
            return None
        self._add(place, f"got {shown(written)}, allowed: a step's name, or {{name: {{option: value}}}}")
        return None

    def _step(self, name: str, options: Mapping[str, Any], at: Place, table: dict[str, str], place: Place) -> Any:
        try:
            return build_step(name, options, table, self._folder)
        except StepFaultError as error:
            for inside, message in error.faults:
                self._add((*at, *inside) if inside else place, message)
            return None

    def _check_stream(self, chain: Chain, source: Source, place: Place) -> None:
        if not isinstance(source, ManifestSource) or source.siblings:
            return
        streams = source.columns.streams
        for read in chain.streams:
            needed: tuple[Stream, ...] = ("audio", "video") if read == "audio" else (read,)
            if not any(stream in streams for stream in needed):
                message = (
                    f"{chain.steps[0].name} reads {read}, but the source has columns for {listed(streams)} only; "
                    f"cure: name a column of {' or '.join(needed)} files, or set siblings: true"
                )
                self._add(place, message)


def _quietly(model: type[_M] | TypeAdapter[_M], data: Any) -> _M | None:
    """An instance of ``model``, or ``None`` where ``data`` does not have its shape."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        return adapter.validate_json(json.dumps(data))
    except ValidationError:
        return None
