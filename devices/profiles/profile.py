"""What a profile says of a device. A fact that nobody could be cited for is None, not a guess."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Generic, Literal, TypeVar

from edge_runtime.bundle.manifest import Precision, Target

__all__ = ["Kind", "Profile", "Reference", "Source", "Sourced"]

T = TypeVar("T")
Kind = Literal["board", "phone", "computer", "microcontroller"]
Place = Literal["cpu", "gpu", "accelerator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a number was read, and when."""

    key: str
    title: str
    publisher: str
    url: str
    seen: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced(Generic[T]):
    """One fact with at least one source; ``note`` says how it is to be taken."""

    value: T
    sources: tuple[Source, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A latency in milliseconds that ``source`` published for a public model on this device; nothing of ours.

    ``macs`` are the model's multiply-adds for one inference, by ``macs_source``.
    """

    model: str
    engine: str
    on: Place
    latency_ms: float
    source: Source
    precision: Precision | None = None
    threads: int | None = None
    macs: int | None = None
    macs_source: Source | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A device. ``arch`` as in ``platform.machine()``, ``os`` as in ``platform.system()`` in lower case.

    ``targets`` are the artifacts that an engine exists for there; none means that the device is too small for Edgeship.
    RAM is in bytes with 1 GB = 2^30; storage in bytes, as sold. ``isa`` are instruction set features as Linux names
    them. ``npu_tops`` is the vendor's peak of the accelerator, in 10^12 operations a second.
    """

    name: str
    title: str
    kind: Kind
    targets: Sourced[tuple[Target, ...]]
    ram_bytes: Sourced[int] | None = None
    storage_bytes: Sourced[int] | None = None
    cpu: Sourced[str] | None = None
    cores: Sourced[int] | None = None
    clock_hz: Sourced[int] | None = None
    isa: Sourced[tuple[str, ...]] | None = None
    npu_tops: Sourced[float] | None = None
    arch: Sourced[str] | None = None
    os: Sourced[str] | None = None
    power_w: Sourced[float] | None = None
    references: tuple[Reference, ...] = ()

    @property
    def too_small(self) -> bool:
        return not self.targets.value

    def attributes(self) -> dict[str, str | int]:
        """Device attributes as `edge_runtime.Device` has them: ``profile``, and what is known of arch, os and RAM."""
        known = {"arch": self.arch, "os": self.os, "ram_bytes": self.ram_bytes}
        return {"profile": self.name} | {name: fact.value for name, fact in known.items() if fact is not None}
