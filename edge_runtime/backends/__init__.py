"""Inference engines behind one protocol. Each engine's module is imported only when a model for it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from edge_runtime.errors import EngineMissing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Manifest

__all__ = ["Engine", "engine_version", "installed_engines", "load_engine"]

# Target of an artifact → (module that must be importable, distribution that states the version, extra that installs it)
_ENGINES = {
    "onnx": ("onnxruntime", "onnxruntime", "onnx"),
    "tflite": ("ai_edge_litert", "ai-edge-litert", "litert"),
}


class Engine(Protocol):
    """A loaded model. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """``onnxruntime`` or ``litert``."""
        ...

    @property
    def version(self) -> str:
        """The engine's version, as in ``1.32.0``."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on already checked ``inputs`` (manifest names; where the manifest has a batch axis, arrays have it too).

        Returns outputs by manifest name, as arrays that the caller owns. Raises `EngineFailed`.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; nothing may be running."""
        ...


def installed_engines() -> tuple[str, ...]:
    """Targets that this device can load, best first. Imports no engine."""
    return tuple(target for target, (module, _, _) in _ENGINES.items() if find_spec(module) is not None)


def engine_version(target: str) -> str | None:
    """Version of the engine for ``target``, or None where it is not installed. Imports no engine."""
    from importlib.metadata import PackageNotFoundError, version

    if target not in _ENGINES:
        return None
    try:
        return version(_ENGINES[target][1])
    except PackageNotFoundError:
        return None


def load_engine(target: str, data: bytes, manifest: Manifest, threads: int = 1, interpreters: int = 1) -> Engine:
    """Load the model file ``data`` (already verified) for ``target`` and compare its tensors with the manifest's.

    ``threads`` is the number of threads one run may use; ``interpreters`` bounds how many copies a non-re-entrant
    engine (LiteRT) may make to run at the same time. Raises `EngineMissing` and `ModelRejected`.
    """
    if target == "coreml":
        raise EngineMissing("Core ML artifacts cannot be run by this version; use the onnx or tflite artifact")
    if target not in _ENGINES:
        raise EngineMissing(f"no engine for target {target!r}; known: {', '.join(_ENGINES)}")
    module, distribution, extra = _ENGINES[target]
    if find_spec(module) is None:
        raise EngineMissing(f"{distribution} is not installed; pip install 'edgeship[{extra}]'")
    if target == "onnx":
        from edge_runtime.backends.onnx import OnnxEngine

        return OnnxEngine(data, manifest, threads)
    from edge_runtime.backends.litert import LiteRtEngine

    return LiteRtEngine(data, manifest, threads, interpreters)
