"""The student: one architecture that is built anew for every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import UnsupportedModel, WrongNames
from converters.quiet import load_tool, quiet
from converters.sources.activation import last_activation

__all__ = ["Student", "check_inputs", "check_student", "given_student", "student_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """``build(seed)`` gives a fresh functional `keras.Model` whose weights depend on the seed alone."""

    name: str
    build: Callable[[int], Any]


def given_student(model: Any | str | Path) -> Student:
    """A Keras architecture: a model or a ``.keras`` file, trained or not. Its weights are drawn anew for every seed,
    all but those of `keras.layers.Normalization`, which are statistics of data.

    Raises `ModelUnreadable`, `UnsupportedModel`.
    """
    from converters.sources.keras import KerasSource

    keras = load_tool("keras")
    template = KerasSource(model).model

    def build(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        with quiet(f"building {template.name}"):
            fresh = keras.models.clone_model(template)
        for old, new in zip(template._flatten_layers(), fresh._flatten_layers(), strict=True):
            if isinstance(old, keras.layers.Normalization) and old.weights:
                new.set_weights(old.get_weights())
                new.finalize_state()  # what the layer computes with is derived from its weights once
        return fresh

    return Student(name=str(template.name), build=build)


def student_from(builder: Callable[[], Any], name: str | None = None) -> Student:
    """A function that builds the model; it is called once for every seed, after Keras is seeded."""
    keras = load_tool("keras")

    def build(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return builder()

    return Student(name=name or getattr(builder, "__name__", "student"), build=build)


def check_student(model: Any, *, outputs: int, regression: bool) -> None:
    """Raises `UnsupportedModel` for a model that cannot learn from a teacher of ``outputs`` numbers a row."""
    made = getattr(model, "outputs", None)
    if not made or not getattr(model, "inputs", None):
        raise UnsupportedModel("a student is a built keras.Model with symbolic inputs: keras.Model(inputs, outputs)")
    shape = tuple(made[0].shape)
    if len(made) != 1 or len(shape) != 2 or shape[1] != outputs:
        what = "values" if regression else "logits"
        raise UnsupportedModel(
            f"the student's output has shape {tuple(shape)}, the teacher gives (batch, {outputs}): a student has one "
            f"output of {outputs} {what}"
        )
    last = last_activation(model)
    if not regression and last is not None:
        raise UnsupportedModel(
            f"the student ends in a {last[0]}; a student gives logits, so that its answers can be softened: leave the "
            f"activation out"
        )


def check_inputs(model: Any, inputs: Mapping[str, np.ndarray]) -> None:
    """Raises `WrongNames` or `UnsupportedModel` where the student does not take these rows."""
    names = [str(tensor.name) for tensor in model.inputs]
    if len(names) != len(inputs) or (len(names) > 1 and set(names) != set(inputs)):
        raise WrongNames(f"the student takes {', '.join(names)}, the data has {', '.join(inputs)}")
    for tensor in model.inputs:
        array = next(iter(inputs.values())) if len(names) == 1 else inputs[str(tensor.name)]
        wanted = tuple(tensor.shape)[1:]
        if len(wanted) != array.ndim - 1 or any(
            size not in (None, have) for size, have in zip(wanted, array.shape[1:], strict=True)
        ):
            raise UnsupportedModel(
                f"the student takes rows of shape {wanted} as {tensor.name}, the data has {array.shape[1:]}"
            )
