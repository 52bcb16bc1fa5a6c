"""A small family of students for those who have none: MLPs, and depthwise-separable networks in one and two dimensions
(Howard et al., 2017, MobileNets), of operators that every target holds in INT8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.distilling.students import Student
from converters.errors import InvalidRequest, UnsupportedModel
from converters.quiet import load_tool

__all__ = ["FAMILIES", "Member", "family_of", "members"]

FAMILIES = {1: "mlp", 2: "conv1d", 3: "conv2d"}  # axes of one row → family
WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One architecture. ``sample`` holds rows that the input normalization is adapted to; ``scale`` and ``offset``
    bring a regression's outputs into their units."""

    family: str
    width: int
    depth: int
    input: str
    sample: np.ndarray
    outputs: int
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.family}-w{self.width}-d{self.depth}"

    def student(self) -> Student:
        return Student(name=self.name, build=self.build)

    def build(self, seed: int) -> Any:
        """A fresh `keras.Model`, input normalization inside the graph."""
        keras = load_tool("keras")
        layers = keras.layers
        keras.utils.set_random_seed(seed)
        given = keras.Input(self.sample.shape[1:], name=self.input, dtype="float32")
        normalize = layers.Normalization(name="normalize")
        normalize.adapt(self.sample)
        h = _mlp(layers, normalize(given), self) if self.family == "mlp" else _separable(layers, normalize(given), self)
        h = layers.Dense(self.outputs, name="values" if self.scale else "logits")(h)
        if self.scale is not None and self.offset is not None:
            h = layers.Rescaling(list(self.scale), offset=list(self.offset), name="units")(h)
        return keras.Model(given, h, name=self.name.replace("-", "_"))


def family_of(shape: tuple[int, ...], wanted: str = "auto") -> str:
    """The family for rows of ``shape``. Raises `UnsupportedModel`, or `InvalidRequest` for one that does not fit."""
    fitting = FAMILIES.get(len(shape))
    if fitting is None:
        raise UnsupportedModel(f"the family has no student for rows of shape {shape}; give one with --student")
    if wanted not in ("auto", fitting):
        raise InvalidRequest(f"family {wanted} does not take rows of shape {shape}; {fitting} does")
    return fitting


def members(
    inputs: dict[str, np.ndarray], outputs: int, *, wanted: str = "auto", regression_answers: np.ndarray | None = None
) -> Iterator[Member]:
    """Every member for these inputs, in no order. ``regression_answers`` ``(rows, outputs)`` give the outputs' units.

    Raises `UnsupportedModel` for several inputs, or rows of more than three axes.
    """
    if len(inputs) != 1:
        raise UnsupportedModel(
            f"the family has one input, the data has {', '.join(sorted(inputs))}; give a student with --student"
        )
    ((name, sample),) = inputs.items()
    family = family_of(sample.shape[1:], wanted)
    scale = offset = None
    if regression_answers is not None:
        spread = regression_answers.std(axis=0)
        scale = tuple(float(value) if value > 0 else 1.0 for value in spread)
        offset = tuple(float(value) for value in regression_answers.mean(axis=0))
    for width in WIDTHS:
        for depth in DEPTHS:
            yield Member(
                family=family,
                width=width,
                depth=depth,
                input=name,
                sample=sample,
                outputs=outputs,
                scale=scale,
                offset=offset,
            )


def _mlp(layers: Any, h: Any, member: Member) -> Any:
    for index in range(member.depth):
        h = layers.Dense(member.width, activation="relu", name=f"dense_{index}")(h)
    return h


def _separable(layers: Any, h: Any, member: Member) -> Any:
    two = member.family == "conv2d"
    convolution = layers.Conv2D if two else layers.Conv1D
    depthwise = layers.DepthwiseConv2D if two else layers.DepthwiseConv1D
    kernel, pool = (3, layers.GlobalAveragePooling2D) if two else (5, layers.GlobalAveragePooling1D)

    def step(layer: Any, h: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layer(h)))

    width = member.width
    h = step(convolution(width, kernel, strides=2, padding="same", use_bias=False), h)
    for index in range(member.depth):
        stride = 2 if index % 2 else 1
        width *= stride
        h = step(depthwise(kernel, strides=stride, padding="same", use_bias=False), h)
        h = step(convolution(width, 1, use_bias=False), h)
    return pool()(h)
