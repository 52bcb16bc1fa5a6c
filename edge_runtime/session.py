"""A loaded artifact: checked inputs in, outputs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_runtime.backends import Engine, load_engine
from edge_runtime.errors import ModelRejected
from edge_runtime.inputs import InputCheck

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Artifact, Manifest

__all__ = ["Session"]


class Session:
    """One artifact of a release in its engine. Safe to use from several threads.

    The converters measure accuracy with it, the canary checks golden examples with it, and `EdgeRuntime` predicts with
    it, so that all three see the same engine with the same settings.
    """

    __slots__ = ("_check", "artifact", "engine", "manifest")

    def __init__(self, manifest: Manifest, artifact: Artifact, engine: Engine) -> None:
        self.manifest = manifest
        self.artifact = artifact
        self.engine = engine
        self._check = InputCheck(manifest.inputs)

    @classmethod
    def load(
        cls, manifest: Manifest, artifact: Artifact, data: bytes, *, threads: int = 1, interpreters: int = 1
    ) -> Session:
        """Load ``data``, the artifact's file. Its size and digest are checked first, then the engine's version.

        Raises `DigestMismatch`, `EngineMissing` and `ModelRejected`.
        """
        from edge_runtime.bundle import verify_file

        verify_file(artifact, data)
        engine = load_engine(artifact.target, data, manifest, threads, interpreters)
        if not version_at_least(engine.version, artifact.minimum_engine_version):
            engine.close()
            raise ModelRejected(
                f"{artifact.file} needs {engine.name} {artifact.minimum_engine_version} or newer, "
                f"this device has {engine.version}; update the engine"
            )
        return cls(manifest, artifact, engine)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run whole arrays, batch axis included: ``{"window": float32[n, 100, 6]}`` → ``{"logits": float32[n, 7]}``.

        Raises `InputError` for inputs that are not the manifest's or not finite, and `EngineFailed`. Values outside
        the range seen in training are not looked at, and outputs are not checked for NaN.
        """
        return self.engine.run(self._check.batch(inputs))

    def close(self) -> None:
        """Free the engine; nothing may be running."""
        self.engine.close()


def version_at_least(version: str, minimum: str) -> bool:
    """Compare dotted versions by their leading numbers: ``1.32.0`` is at least ``1.9``. Empty means no minimum."""
    return _numbers(version) >= _numbers(minimum)


def _numbers(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
