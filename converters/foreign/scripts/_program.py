"""An ExportedProgram, read from its file without running code from it, and as a function of a flat list of tensors.

Needs torch, and nothing of this project.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from _protocol import Refused
from torch.utils import _pytree as pytree

__all__ = ["Flat", "Tensor", "flat_export", "load", "samples", "tensors"]


@dataclass(frozen=True)
class Tensor:
    """``shape`` holds sizes and, for dynamic axes, the program's symbols as text (``s77``, ``2*s77``)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def load(path: str, *, trust_pickle: bool = False) -> Any:
    """``torch.export.load``, which falls back to unpickling anything it is given, without that fall-back.

    Plain tensors are read by torch's restricted unpickler (``weights_only``). Raises `Refused` for a file that asks for
    more, unless ``trust_pickle``.
    """
    if not trust_pickle:
        _forbid_pickles()
    try:
        return torch.export.load(path)
    except (pickle.UnpicklingError, Refused) as error:
        raise Refused("pickle", str(error).splitlines()[0]) from error
    except Exception as error:
        raise Refused("unreadable", f"{type(error).__name__}: {str(error)[:300]}") from error


def _forbid_pickles() -> None:
    from torch.export.pt2_archive import _package

    unrestricted = torch.load

    def restricted(*args: Any, **kwargs: Any) -> Any:
        return unrestricted(*args, **{**kwargs, "weights_only": True})

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused("pickle", "it holds a pickled Python or TorchScript object as a constant")

    torch.load = restricted
    _package.pickle = SimpleNamespace(loads=refuse)
    torch._C._pickle_load_obj = refuse


def tensors(program: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs in the order of the flattened program. Raises `Refused` for what is not a tensor."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [_tensor(str(name), values.get(str(name)), "input") for name in program.graph_signature.user_inputs]
    results = program.graph_signature.user_outputs
    names = _output_names(program.call_spec.out_spec, len(results))
    outputs = [
        _tensor(name, values.get(result) if isinstance(result, str) else result, "output")
        for name, result in zip(names, results, strict=True)
    ]
    return inputs, outputs


def _tensor(name: str, value: Any, role: str) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise Refused(
            "model", f"{role} {name} is {value!r}, not a tensor; fix it inside the module and export the module again"
        )
    shape = tuple(int(size) if isinstance(size, int) else str(size) for size in value.shape)
    return Tensor(name, str(value.dtype).removeprefix("torch."), shape)


def _output_names(spec: Any, count: int) -> list[str]:
    """Keys of a dictionary of outputs, joined where it is nested; else ``output``, or ``output_0`` and so on."""
    keyed, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), spec))
    names = []
    for path, _value in keyed:
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
        name = "_".join(parts)
        names.append("output" if not name else f"output_{name}" if name[0].isdigit() else name)
    return names


class Flat(torch.nn.Module):
    """The program as a module of positional tensors that gives a tuple of tensors: what every converter accepts."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.inner = program.module()
        self._in_spec = program.call_spec.in_spec

    def forward(self, *flat: Any) -> tuple[Any, ...]:
        args, kwargs = pytree.tree_unflatten(list(flat), self._in_spec)
        return tuple(pytree.tree_leaves(self.inner(*args, **kwargs)))


def samples(inputs: list[Tensor]) -> tuple[Any, ...]:
    """An array of zeros for each input, every dynamic axis at 1."""
    return tuple(
        torch.zeros([size if isinstance(size, int) else 1 for size in each.shape], dtype=getattr(torch, each.dtype))
        for each in inputs
    )


def flat_export(program: Any) -> Any:
    """The program exported again, flat and for one example: dynamic axes become 1.

    Raises `Refused` where the program's own limits on its batch exclude 1.
    """
    inputs, _ = tensors(program)
    flat = Flat(program)
    arrays = samples(inputs)
    try:
        with torch.no_grad():
            flat(*arrays)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise Refused("model", f"it does not run for a batch of 1 ({str(error).splitlines()[0]})") from error
    return torch.export.export(flat, arrays)
