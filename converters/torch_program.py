"""A PyTorch ExportedProgram as this process sees it: a file, which the environment ``torch`` describes and runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.environments import TORCH, ensure
from converters.tool_process import SCRIPTS, run_script

__all__ = ["Description", "Program", "Tensor", "describe", "predict", "run_torch"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An ExportedProgram's file. ``trust_pickle`` lets it be read where that can run code."""

    path: Path
    trust_pickle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """``sizes`` holds numbers and, for dynamic axes, the program's symbols or what it computes of them (``2*s77``)."""

    name: str
    dtype: str
    sizes: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a program says of itself."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: int
    activation: str | None


def describe(program: Program, say: Say) -> Description:
    """Raises `ModelUnreadable`, `PickleRefused`, `UnsupportedModel` for what is no tensor, and `ToolMissing`."""
    told = run_torch("torch_describe", program, {}, "torch.export.load", say)
    return Description(
        inputs=tuple(_tensor(each) for each in told["inputs"]),
        outputs=tuple(_tensor(each) for each in told["outputs"]),
        parameters=int(told["parameters"]),
        activation=told["activation"],
    )


def predict(
    program: Program, arrays: Sequence[np.ndarray], outputs: int, *, chunk: int, whole: bool, say: Say
) -> list[np.ndarray]:
    """The program's outputs, ``(rows, …)`` each, for inputs ``(rows, …)`` in its order, ``chunk`` rows at a time.

    ``whole``: a row is a whole input, without a batch axis. Arrays go through files, so neither side holds them twice.
    """
    with tempfile.TemporaryDirectory(prefix="edgeship-torch-") as folder:
        given = [Path(folder) / f"input_{index}.npy" for index in range(len(arrays))]
        answers = [Path(folder) / f"output_{index}.npy" for index in range(outputs)]
        for path, array in zip(given, arrays, strict=True):
            np.save(path, array, allow_pickle=False)
        request = {
            "inputs": [str(path) for path in given],
            "outputs": [str(path) for path in answers],
            "chunk": chunk,
            "whole": whole,
            "threads": 1,
        }
        run_torch("torch_predict", program, request, "running the PyTorch program", say)
        return [np.load(path, allow_pickle=False) for path in answers]


def run_torch(script: str, program: Program, request: Mapping[str, Any], stage: str, say: Say) -> dict[str, Any]:
    """What a script of that environment answers about the program; errors are those of `run_script`."""
    return run_script(
        ensure(TORCH, say),
        SCRIPTS / f"{script}.py",
        {"program": str(program.path.absolute()), "trust_pickle": program.trust_pickle, **request},
        stage=stage,
        subject=str(program.path),
    )


def _tensor(told: Mapping[str, Any]) -> Tensor:
    return Tensor(name=told["name"], dtype=told["dtype"], sizes=tuple(told["shape"]))
