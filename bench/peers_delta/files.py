"""Real artifacts before and after each change of the trained model, through our own converter.

The change is made to the float model, which is then converted and quantized again as an ML engineer would, with the
same calibration rows. INT8 files are made by the default static recipe, without the search for what should stay in
float, which takes minutes and changes few bytes; nothing here looks at accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers_delta.moving import CHANGES, Change, move_keras, moved_onnx
from bench.real_models.folder import MODELS
from converters.data import Dataset, check_dataset, load_dataset
from converters.progress import unheard
from converters.quantize.formats import open_quantizer
from converters.quantize.recipes import load_recipe
from converters.quiet import load_tool, quiet
from converters.routes import make_float
from converters.sources.base import Source, is_batched
from converters.sources.keras import KerasSource
from converters.sources.opening import open_source

__all__ = ["CASES", "QUICK", "RETRAINED", "Case", "Pair", "pairs"]

SEED = 7
RETRAINED = "retrained"
RETRAINED_EPOCHS, RETRAINED_RATE = 2, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``source`` is a file in a real model's folder; ``rows`` of its calibration set give the ranges of INT8;
    ``retrained``: trained on as well, on its own training rows."""

    model: str
    source: str
    targets: tuple[str, ...]
    precisions: tuple[str, ...] = ("fp32", "int8")
    changes: tuple[Change, ...] = CHANGES
    rows: int
    retrained: bool = False


CASES = (
    Case(model="smartwatch", source="student.keras", targets=("onnx", "tflite"), rows=256, retrained=True),
    # Exported by PyTorch; ONNX only, since another helper environment takes two minutes for each TFLite file.
    Case(model="efficientnet-lite0", source="model.onnx", targets=("onnx",), rows=16),
)
QUICK = (
    Case(model="smartwatch", source="student.keras", targets=("onnx", "tflite"), rows=256),
    Case(
        model="efficientnet-lite0",
        source="model.onnx",
        targets=("onnx",),
        precisions=("int8",),
        changes=(CHANGES[1],),
        rows=8,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An artifact of the old release and one of the new; ``how`` says what was changed."""

    model: str
    target: str
    precision: str
    change: str
    how: str
    old: Path
    new: Path


def pairs(case: Case, folder: Path, say: Callable[[str], None]) -> list[Pair]:
    """Make the files of a case in ``folder``."""
    made: dict[str, dict[tuple[str, str], Path]] = {}
    how: dict[str, str] = {}
    for name, told, source in _sources(case, folder):
        say(f"{case.model}: {f'converting, {told}' if told else 'converting as it is'}")
        how[name] = told
        made[name] = dict(_artifacts(case, source, folder / f"{len(made)}"))
    (before, *after) = made
    return [
        Pair(
            model=case.model,
            target=target,
            precision=precision,
            change=change,
            how=how[change],
            old=made[before][target, precision],
            new=made[change][target, precision],
        )
        for target, precision in made[before]
        for change in after
    ]


def _sources(case: Case, folder: Path) -> Iterator[tuple[str, str, Source]]:
    """(name, what was changed, model): the model as it is, then after each change, all from the same start."""
    path = MODELS / case.model / case.source
    if path.suffix == ".onnx":
        yield "", "", open_source(path)
        for number, change in enumerate(case.changes):
            changed = folder / f"changed-{number}" / path.name
            changed.parent.mkdir()
            changed.write_bytes(moved_onnx(path.read_bytes(), change, SEED))
            yield change.name, _told(change), open_source(changed)
        return
    model = load_tool("keras").models.load_model(path, compile=False)
    start = model.get_weights()
    yield "", "", KerasSource(model)
    for change in case.changes:
        model.set_weights(start)
        move_keras(model.layers, change, SEED)
        yield change.name, _told(change), KerasSource(model)
    if case.retrained:
        model.set_weights(start)
        _train(model, MODELS / case.model / "training.npz")
        yield RETRAINED, f"{RETRAINED_EPOCHS} more epochs", KerasSource(model)


def _told(change: Change) -> str:
    return f"{'last layer' if change.last_only else 'every weight'} moved by {change.share:.0%} of its channel"


def _train(model: Any, rows: Path) -> None:
    keras = load_tool("keras")
    data = load_dataset(rows)
    keras.utils.set_random_seed(SEED)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RETRAINED_RATE), loss)
    with quiet("training"):
        (inputs,) = data.inputs.values()
        model.fit(inputs, data.labels, batch_size=64, epochs=RETRAINED_EPOCHS, verbose=0)


def _artifacts(case: Case, source: Source, folder: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    folder.mkdir()
    for target in case.targets:
        exact = make_float(source, target, unheard).data
        for precision in case.precisions:
            data = exact if precision == "fp32" else _int8(case, source, target, exact)
            path = folder / f"{case.model}-{precision}.{target}"
            path.write_bytes(data)
            yield (target, precision), path


def _int8(case: Case, source: Source, target: str, exact: bytes) -> bytes:
    rows = _calibration(case, source)
    outputs = [spec.name for spec in source.outputs]
    batched = is_batched(source.inputs)
    return open_quantizer(target, exact, rows.inputs, outputs, batched=batched).quantize(load_recipe())


def _calibration(case: Case, source: Source) -> Dataset:
    data = load_dataset(MODELS / case.model / "calibration.npz").take(case.rows)
    return check_dataset(data, source.inputs)
