"""A PyTorch ExportedProgram (``.pt2``), as `torch.export.save` writes it. PyTorch itself stays in its environment."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from converters.errors import ModelUnreadable
from converters.sources.base import BATCH, Kind, is_batched
from converters.sources.files import check_archive
from converters.sources.signed import Signed
from converters.sources.tensors import RawTensor, sign
from converters.torch_program import Program, Tensor, describe, predict

__all__ = ["TorchSource", "named_axes"]

CHUNK = 64  # rows that the program takes at once; images of 224 pixels are 0.6 MB each
SYMBOL = re.compile(r"[A-Za-z_]\w*")
# What torch 2.13 writes below the archive's folder. Compiled code (data/aotinductor) is what else it would load.
ENTRIES = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/[\w.]+|models/[^/]+\.json|extra/.+"
    r"|data/(weights|constants)/[^/]+|data/sample_inputs/[^/]+\.pt)"
)
HOW = (
    "export the module with program = torch.export.export(module.eval(), example_inputs) and "
    "torch.export.save(program, 'model.pt2'), in PyTorch 2.8 or later, and give that file"
)


class TorchSource(Signed):
    """A program for a dynamic batch, or for a batch of exactly 1, which is then asked row by row.

    Inputs are named as ``forward`` names its arguments; outputs by the keys of the dictionary that it returns, else
    ``output``, or ``output_0`` and so on. The file is read in a process of the environment ``torch``, by an unpickler
    that takes tensors only, unless ``trust_pickle``. ``say`` hears when that environment is made.

    Raises `ModelUnreadable` for anything but a whole ExportedProgram, `PickleRefused` for one that holds more than
    tensors, `UnsupportedModel` for inputs or outputs that no manifest can state, and `ToolMissing` where the
    environment cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        first_axis: str = BATCH,
        trust_pickle: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        path = Path(path)
        _check_file(path)
        self.program = Program(path=path, trust_pickle=trust_pickle)
        self._name = name or path.stem
        self._say = say
        self._about = describe(self.program, say)
        named = named_axes((*self._about.inputs, *self._about.outputs))
        count = len(self._about.inputs)
        self._signature = sign(str(path), named[:count], named[count:], first_axis=first_axis)

    @property
    def kind(self) -> Kind:
        return "torch"

    @property
    def path(self) -> Path:
        return self.program.path

    @property
    def parameters(self) -> int:
        return self._about.parameters

    @property
    def activation(self) -> str | None:
        return self._about.activation

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, computed on one thread in a process of the environment ``torch``."""
        arrays = [np.asarray(inputs[spec.name], dtype=spec.dtype) for spec in self.inputs]
        whole = not is_batched(self.inputs)
        chunk = 1 if whole or self.one_at_a_time else CHUNK
        values = predict(self.program, arrays, len(self.outputs), chunk=chunk, whole=whole, say=self._say)
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}


def _check_file(path: Path) -> None:
    """Refuse by the archive's directory what is no plain ExportedProgram, before anything loads it."""
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ModelUnreadable(f"{path} is not an ExportedProgram: it is a damaged file, or a pickle of weights; {HOW}")
    names = [PurePosixPath(name).parts for name in check_archive(path, str(path)) if not name.endswith("/")]
    inner = ["/".join(parts[1:]) for parts in names]
    if "data.pkl" in inner:
        raise ModelUnreadable(f"{path} holds a pickle (torch.save) or TorchScript, not an ExportedProgram; {HOW}")
    if not any(name.startswith("models/") for name in inner) or len({parts[0] for parts in names}) != 1:
        raise ModelUnreadable(f"{path} is not an ExportedProgram of this format; {HOW}")
    for name in inner:
        if not ENTRIES.fullmatch(name):
            raise ModelUnreadable(
                f"{path} holds {name!a}, which is not part of an ExportedProgram: compiled code, perhaps; {HOW}"
            )


def named_axes(tensors: tuple[Tensor, ...]) -> list[RawTensor]:
    """The tensors with readable names for the program's symbols (``s77``): ``<tensor>_<axis>``, where first met.

    Sizes that are computed from symbols get no name, and so one of their own.
    """
    names: dict[str, str] = {}
    result = []
    for tensor in tensors:
        sizes: list[int | str | None] = []
        for axis, size in enumerate(tensor.sizes):
            if isinstance(size, str):
                sizes.append(names.setdefault(size, f"{tensor.name}_{axis}") if SYMBOL.fullmatch(size) else None)
            else:
                sizes.append(size)
        result.append(RawTensor(name=tensor.name, dtype=tensor.dtype, sizes=tuple(sizes)))
    return result
