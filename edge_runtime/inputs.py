"""Check what a caller passes to `predict` against the manifest. Pure; on the hot path, hence the short cuts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edge_runtime.errors import InputOutOfRange, NonFiniteInput, WrongDtype, WrongInputs, WrongShape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import TensorSpec

__all__ = ["Checked", "InputCheck", "raise_out_of_range"]

BATCH = "batch"
_LARGEST = sys.float_info.max
_ALL_FINITE = (-_LARGEST, _LARGEST)


class Checked(NamedTuple):
    """Inputs that may go to an engine or to the cloud.

    ``local`` and ``cloud`` have the axes of the manifest's shapes (a left-out batch axis is put back). ``cloud`` is
    None unless every cloud input was given. ``out_of_range`` names the local inputs with values outside what training
    saw; ``bytes`` is the size of the local ones.
    """

    local: dict[str, NDArray[Any]]
    cloud: dict[str, NDArray[Any]] | None
    out_of_range: tuple[str, ...]
    bytes: int


class InputCheck:
    """The checks of one release, prepared once. ``local`` are required; ``cloud`` are optional, all or none."""

    def __init__(self, local: Sequence[TensorSpec], cloud: Sequence[TensorSpec] = (), *, require_local: bool = True):
        names = {spec.name for spec in local}
        self._local = [_Tensor(spec) for spec in local]
        self._cloud_only = [_Tensor(spec) for spec in cloud if spec.name not in names]
        self._cloud_names = [spec.name for spec in cloud]
        self._known = names | set(self._cloud_names)
        self._require_local = require_local

    def example(self, inputs: Mapping[str, NDArray[Any]]) -> Checked:
        """Check one example: each array has the manifest's shape, with or without a ``batch`` axis of length 1.

        Raises `WrongInputs`, `WrongShape`, `WrongDtype` or `NonFiniteInput`.
        """
        feed: dict[str, NDArray[Any]] = {}
        outside: tuple[str, ...] = ()
        size = given = 0
        for tensor in self._local:
            array = inputs.get(tensor.name) if type(inputs) is dict else _get(inputs, tensor.name)
            if array is None:
                if self._require_local:
                    raise WrongInputs(f"input {tensor.name!r} is missing; the model takes {sorted(self._known)}")
                continue
            feed[tensor.name] = checked = tensor.example(array)
            if not tensor.inside(array):
                outside = (*outside, tensor.name)
            given += 1
            size += checked.nbytes
        if given == len(inputs) and not self._cloud_names:
            return Checked(feed, None, outside, size)
        return Checked(feed, self._cloud(inputs, feed, given), outside, size)

    def _cloud(
        self, inputs: Mapping[str, NDArray[Any]], feed: dict[str, NDArray[Any]], given: int
    ) -> dict[str, NDArray[Any]] | None:
        extra: dict[str, NDArray[Any]] = {}
        for tensor in self._cloud_only:
            array = inputs.get(tensor.name)
            if array is not None:
                extra[tensor.name] = checked = tensor.example(array)
                tensor.inside(checked)  # for values that are not finite; a range is the local model's business
        if given + len(extra) != len(inputs):
            unknown = sorted(str(name) for name in inputs if name not in self._known or inputs[name] is None)
            raise WrongInputs(f"not an input of the model: {unknown}; it takes {sorted(self._known)}")
        if not self._cloud_names:
            return None
        cloud = {name: extra[name] if name in extra else feed.get(name) for name in self._cloud_names}
        return None if any(array is None for array in cloud.values()) else cloud  # type: ignore[return-value]

    def batch(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Check arrays that have every axis of the manifest's shapes, the batch axis of any length; no range check.

        Raises as `example` does.
        """
        if not isinstance(inputs, Mapping) or set(inputs) != {tensor.name for tensor in self._local}:
            raise WrongInputs(f"the model takes exactly {sorted(tensor.name for tensor in self._local)}")
        feed = {tensor.name: tensor.batch(inputs[tensor.name]) for tensor in self._local}
        if len({len(feed[tensor.name]) for tensor in self._local if tensor.batched}) > 1:
            raise WrongShape("the inputs have different batch lengths")
        return feed


def raise_out_of_range(checked: Checked) -> None:
    """Raise `InputOutOfRange` for the inputs that ``checked`` found outside what training saw."""
    names = ", ".join(repr(name) for name in checked.out_of_range)
    raise InputOutOfRange(
        f"input {names} has values outside what training saw; "
        "check the sensor and its unit, or set RoutingPolicy.out_of_range"
    )


def _get(inputs: Any, name: str) -> Any:
    if not isinstance(inputs, Mapping):
        raise WrongInputs(f"inputs must be a mapping of names to arrays, not {type(inputs).__name__}")
    return inputs.get(name)


class _Tensor:
    """One input's checks, with what they compare against made ready."""

    __slots__ = ("_example", "_fixed", "_full", "_range", "_shape", "batched", "dtype", "kind", "name")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.dtype = np.dtype(spec.dtype)
        self.kind = self.dtype.kind
        self.batched = spec.shape[:1] == (BATCH,)
        self._shape = spec.shape
        one = spec.shape[1:] if self.batched else spec.shape
        self._fixed = all(isinstance(size, int) for size in one)
        self._example: tuple[int | str, ...] = one
        self._full: tuple[int | str, ...] = (1, *one) if self.batched else one
        self._range = spec.range

    def example(self, array: Any) -> NDArray[Any]:
        self._check_dtype(array)
        shape = array.shape
        if shape == self._full:
            return array  # type: ignore[no-any-return]
        if self.batched and shape == self._example:
            return array[np.newaxis]  # type: ignore[no-any-return]
        if not self._fixed:
            if _fits(self._full, shape):
                return array  # type: ignore[no-any-return]
            if self.batched and _fits(self._example, shape):
                return array[np.newaxis]  # type: ignore[no-any-return]
        hint = "" if not self.batched else f" (or {self._full})"
        raise WrongShape(f"input {self.name!r} has shape {shape}, not {self._example}{hint}")

    def batch(self, array: Any) -> NDArray[Any]:
        self._check_dtype(array)
        if not _fits(self._shape, array.shape):
            raise WrongShape(f"input {self.name!r} has shape {array.shape}, not {self._shape}")
        self.inside(array)  # for NaN and infinity
        return array  # type: ignore[no-any-return]

    def inside(self, array: NDArray[Any]) -> bool:
        """Whether all values lie in the range training saw; raises `NonFiniteInput` for NaN and infinity."""
        if self._range is None and self.kind != "f":
            return True
        # Both reductions pass NaN on, comparing with NaN is false, and infinity lies outside every range.
        low, high = float(np.minimum.reduce(array, axis=None)), float(np.maximum.reduce(array, axis=None))
        lowest, highest = self._range or _ALL_FINITE
        if low >= lowest and high <= highest:
            return True
        if not (low >= -_LARGEST and high <= _LARGEST):
            raise NonFiniteInput(f"input {self.name!r} holds NaN or infinity")
        return False

    def _check_dtype(self, array: Any) -> None:
        try:
            if array.dtype == self.dtype and isinstance(array, np.ndarray):
                return
        except AttributeError:
            pass
        if not isinstance(array, np.ndarray):
            raise WrongDtype(
                f"input {self.name!r} is a {type(array).__name__}; pass numpy.asarray(…, dtype=numpy.{self.dtype.name})"
            )
        raise WrongDtype(
            f"input {self.name!r} is {array.dtype}, the model takes {self.dtype.name}; nothing is converted silently, "
            f"call .astype(numpy.{self.dtype.name}) where that is meant"
        )


def _fits(stated: tuple[int | str, ...], shape: tuple[int, ...]) -> bool:
    return len(stated) == len(shape) and all(
        size == wanted if isinstance(wanted, int) else size >= 1 for wanted, size in zip(stated, shape, strict=True)
    )
