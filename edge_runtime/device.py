"""What this device is: an id that it keeps, attributes that plans and requirements ask for, and what fits it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.bundle import Artifact, Manifest, Requirements
from edge_runtime.disk import Disk, RealDisk, read_sealed, write_sealed
from edge_runtime.errors import ConfigurationError, Outcome, UpdateError

__all__ = ["PRECISIONS", "Attribute", "Device", "choose_artifact", "fits", "version_attribute"]

# Smallest first: where a release has several artifacts for an engine, its converter has gated each for accuracy.
PRECISIONS = ("int8", "int8-dynamic", "int8-weights", "fp16", "fp32")

Attribute = str | int | float | bool

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_FILE = "device.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """``id`` is 1 to 128 of ``A-Z a-z 0-9 . _ -``. Attributes stay on the device, but for arch and os in outcome
    reports; they are set locally and unsigned, so a plan can only aim with them, not trust them."""

    id: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ConfigurationError(f"{self.id!r} is not a device id: use 1 to 128 of A-Z a-z 0-9 . _ -")

    @classmethod
    def detect(cls, folder: Path, *, disk: Disk | None = None, random: Callable[[int], bytes] = os.urandom) -> Device:
        """This machine, with the id kept in ``folder``; a random one is made at the first call and after damage.

        Attributes: ``arch`` and ``os`` as in `platform`, in lower case for the os; ``python``; ``ram_bytes`` where the
        system tells; ``onnx_version`` and ``tflite_version`` where that engine is installed. Raises `StoreError`.
        """
        disk = RealDisk() if disk is None else disk
        path = folder / _FILE
        kept = (read_sealed(disk, path) or {}).get("id")
        if isinstance(kept, str) and _ID.fullmatch(kept):
            return cls(id=kept, attributes=_attributes())
        made = random(16).hex()
        disk.mkdir(folder)
        write_sealed(disk, path, {"format": 1, "id": made})
        return cls(id=made, attributes=_attributes())


def version_attribute(target: str) -> str:
    """The attribute that holds the version of the engine for ``target``, as in ``onnx_version``."""
    return f"{target}_version"


def fits(requirements: Requirements, artifact: Artifact, device: Device) -> str | None:
    """None if the artifact may run on the device, else why not. Pure.

    An attribute that the device does not know cannot rule anything out: the canary still stands between a release and
    its first use.
    """
    from edge_runtime.session import version_at_least

    attributes = device.attributes
    arch, system, ram = (attributes.get(name) for name in ("arch", "os", "ram_bytes"))
    if requirements.arch and arch is not None and arch not in requirements.arch:
        return f"needs {' or '.join(requirements.arch)}, this is {arch}"
    if requirements.os and system is not None and system not in requirements.os:
        return f"needs {' or '.join(requirements.os)}, this is {system}"
    if isinstance(ram, int | float) and ram < requirements.ram_bytes:
        return f"needs {requirements.ram_bytes} bytes of RAM, there are {ram}"
    if isinstance(ram, int | float) and artifact.peak_memory_bytes is not None and ram < artifact.peak_memory_bytes:
        return f"needs {artifact.peak_memory_bytes} bytes at its peak, there are {ram} bytes of RAM"
    version = attributes.get(version_attribute(artifact.target))
    if isinstance(version, str) and not version_at_least(version, artifact.minimum_engine_version):
        return f"needs engine version {artifact.minimum_engine_version}, this is {version}"
    return None


def choose_artifact(
    manifest: Manifest, device: Device, engines: Sequence[str], *, precisions: Sequence[str] = PRECISIONS
) -> Artifact:
    """The artifact for this device: the first target of ``engines`` that has one that fits, there the first of
    ``precisions``. Raises `UpdateError` with ``Outcome.INCOMPATIBLE`` that lists every refusal."""
    refusals: list[str] = []
    for target in engines:
        for precision in precisions:
            for artifact in manifest.artifacts:
                if (artifact.target, artifact.precision) != (target, precision):
                    continue
                reason = fits(manifest.requirements, artifact, device)
                if reason is None:
                    return artifact
                refusals.append(f"{artifact.file} {reason}")
    targets = {artifact.target for artifact in manifest.artifacts}
    if not refusals:
        refusals.append(
            f"it has artifacts for {', '.join(sorted(targets))}, this device has engines for "
            f"{', '.join(engines) or 'none'}"
        )
    raise UpdateError(
        Outcome.INCOMPATIBLE,
        f"no artifact of {manifest.model} release {manifest.release} fits this device: {'; '.join(refusals)}",
    )


def _attributes() -> dict[str, Attribute]:
    from edge_runtime.backends import engine_version

    attributes: dict[str, Attribute] = {
        "arch": platform.machine(),
        "os": platform.system().lower(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not POSIX, or a system that does not tell
        attributes["ram_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for target in ("onnx", "tflite"):
        version = engine_version(target)
        if version is not None:
            attributes[version_attribute(target)] = version
    return attributes
