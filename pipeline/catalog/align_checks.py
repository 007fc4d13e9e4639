"""What is wrong with an ``align`` entry that its shape does not show: names and files that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from features.base import FrameSelector
from pipeline.catalog.align_models import Align, Estimate, SignalSpec
from pipeline.catalog.models import ManifestSource, Source
from pipeline.catalog.problems import Place, did_you_mean, file_problem, listed
from pipeline.chain import Chain

Found = Iterator[tuple[Place, str]]


def unknown_policies(raw: Any, features: Any) -> Found:
    """Policies of features that the data set does not have; ``raw`` is the entry as it is written."""
    policies = raw.get("policies") if isinstance(raw, dict) else None
    if isinstance(policies, dict) and isinstance(features, dict):
        for feature in policies:
            if feature not in features:
                yield ("policies", feature), _no_feature(feature, features)


def align_problems(
    align: Align, chains: Mapping[str, Chain], features: Mapping[str, Any], source: Source, root: str | None
) -> Found:
    """Problems of an entry whose shape is right.

    ``chains``: the features that could be built, of all that are written in ``features``; a feature that could not has
    been told of.
    """
    if align.rows_of is not None:
        yield from _feature_with_times(align.rows_of, chains, features)
    columns = source.columns.streams if isinstance(source, ManifestSource) and not source.siblings else None
    if align.text is not None and columns is not None and "text" not in columns:
        message = (
            f"the timeline is that of the text, but the source has columns for {listed(columns)} only; "
            "cure: name a column of text files, or set siblings: true"
        )
        yield ("text",), message
    if align.intervals is not None and root is not None and "://" not in root:
        problem = file_problem(root, align.intervals.path, "a .csv or .parquet file")
        if problem is not None:
            yield ("intervals", "path"), problem
    if len(chains) == len(features):
        read = {chain.stream for chain in chains.values()} | ({"text"} if align.text is not None else set())
        for stream in align.clocks:
            if stream not in read:
                yield ("clocks", stream), f"no feature reads {stream}; allowed: {listed(read)}"
    estimated = [stream for stream, clock in align.clocks.items() if clock.estimate is not None]
    for stream, clock in align.clocks.items():
        if clock.estimate is not None:
            yield from _estimate(clock.estimate, stream, estimated, chains, features)


def _no_feature(name: str, features: Mapping[str, Any]) -> str:
    return f"no feature {name!r} in this data set; allowed: {listed(features)}{did_you_mean(name, features)}"


def _feature_with_times(name: str, chains: Mapping[str, Chain], features: Mapping[str, Any]) -> Found:
    if name not in features:
        yield ("rows_of",), _no_feature(name, features)
    elif name in chains and not _has_times(chains[name]):
        timed = [other for other, chain in chains.items() if _has_times(chain)]
        message = f"{name} reads still images, which hold always: its rows have no times; allowed: {listed(timed)}"
        yield ("rows_of",), message


def _has_times(chain: Chain) -> bool:
    return chain.stream != "image" or any(isinstance(step, FrameSelector) for step in chain.prepare)


def _estimate(
    estimate: Estimate,
    stream: str,
    estimated: Sequence[str],
    chains: Mapping[str, Chain],
    features: Mapping[str, Any],
) -> Found:
    place: Place = ("clocks", stream, "estimate", "from")
    streams = []
    for index, signal in enumerate(estimate.pair):
        if signal.feature not in features:
            yield (*place, index), _no_feature(signal.feature, features)
        elif signal.feature in chains:
            chain = chains[signal.feature]
            streams.append(chain.stream)
            if not _has_times(chain):
                yield (*place, index), f"{signal.feature} reads still images, which have no times"
            if (problem := _column_problem(signal, chain)) is not None:
                yield (*place, index), problem
    if len(streams) == 2 and (stream not in streams or streams[0] == streams[1]):
        got = " and ".join(streams)
        yield place, f"got features of {got}, allowed: one of {stream} and one of another stream"
    elif len(streams) == 2:
        (other,) = set(streams) - {stream}
        if other in estimated:
            yield place, f"the clock of {other} is to be estimated, too; cure: let one of the two stand"


def _column_problem(signal: SignalSpec, chain: Chain) -> str | None:
    names = column_names(chain)
    dim: int = chain.extractor.dim
    if isinstance(signal.column, str):
        if signal.column in names:
            return None
        allowed = f"{listed(names)}, or a number below {dim}" if names else f"a number below {dim}"
        return f"{chain.name} has no column {signal.column!r}; allowed: {allowed}{did_you_mean(signal.column, names)}"
    return None if signal.column < dim else f"{chain.name} has no column {signal.column}; allowed: 0 to {dim - 1}"


def column_names(chain: Chain) -> tuple[str, ...]:
    """The names of a feature's first columns, where its extractor gives them (``columns``)."""
    return tuple(getattr(chain.extractor, "columns", ()))


def column_of(signal: SignalSpec, chain: Chain) -> int:
    """The number of a signal's column."""
    return signal.column if isinstance(signal.column, int) else column_names(chain).index(signal.column)
