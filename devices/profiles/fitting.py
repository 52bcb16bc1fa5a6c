"""What fits a device: budgets, requirements, and an estimate of latency that is called one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from devices.profiles.profile import Profile, Reference
from edge_runtime.bundle.manifest import Precision, Requirements, Target

__all__ = ["ARTIFACT_SHARE", "RAM_SHARE", "Budgets", "Estimate", "budgets", "estimated_latency", "matches"]

# A policy of this project, not a fact about any device: the system and the app need the rest.
RAM_SHARE = 0.25  # of the RAM may go to one model at its peak
ARTIFACT_SHARE = 0.5  # of that may be the file: an engine holds the weights, often once more in its own layout
STORAGE_SHARE = 0.1  # of the storage may go to one artifact; the store keeps up to three releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What one model may take: RAM at its peak and the artifact's file, in bytes (None: the device's RAM and storage
    are not known), and the targets that can run there."""

    ram_bytes: int | None
    artifact_bytes: int | None
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimated latency, never a measured one: ``macs`` at the rate of ``reference``, in milliseconds."""

    latency_ms: float
    macs: int
    reference: Reference

    @property
    def method(self) -> str:
        """One sentence for a report."""
        return (
            f"estimated: {self.macs:,} multiply-adds at the rate that {self.reference.source.publisher} published for "
            f"{self.reference.model} ({self.reference.latency_ms:g} ms with {self.reference.engine}); not measured"
        )


def budgets(profile: Profile) -> Budgets:
    """Budgets of the device by the shares above."""
    ram = None if profile.ram_bytes is None else int(profile.ram_bytes.value * RAM_SHARE)
    limits = [] if ram is None else [int(ram * ARTIFACT_SHARE)]
    if profile.storage_bytes is not None:
        limits.append(int(profile.storage_bytes.value * STORAGE_SHARE))
    return Budgets(ram_bytes=ram, artifact_bytes=min(limits, default=None), targets=profile.targets.value)


def estimated_latency(profile: Profile, macs: int, precision: Precision) -> Estimate | None:
    """How long a model of ``macs`` multiply-adds may take on the device's CPU; None without a published latency at that
    precision whose multiply-adds are known.

    Crude: multiply-adds divided by the slowest such rate. It knows nothing of memory traffic, of layers that use the
    processor badly (depthwise ones, small ones), of the engine's fixed cost a call, or of heat; a small model can
    easily take several times as long.
    """
    known = [
        reference
        for reference in profile.references
        if reference.on == "cpu" and reference.precision == precision and reference.macs is not None
    ]
    if not known:
        return None
    slowest = max(known, key=_ms_a_mac)
    return Estimate(latency_ms=macs * _ms_a_mac(slowest), macs=macs, reference=slowest)


def _ms_a_mac(reference: Reference) -> float:
    return reference.latency_ms / (reference.macs or 1)


def matches(
    profile: Profile,
    requirements: Requirements,
    *,
    target: Target,
    artifact_bytes: int,
    peak_memory_bytes: int | None = None,
) -> tuple[str, ...]:
    """Every reason why the artifact should not go to the device; none if it may.

    A fact that the profile does not hold rules nothing out, as on a device (`edge_runtime.device.fits`).
    """
    limits, reasons = budgets(profile), []
    if profile.too_small:
        return (f"{profile.title} is too small: {profile.targets.note or 'no engine runs there'}",)
    if target not in limits.targets:
        reasons.append(f"no engine for {target} there, only for {', '.join(limits.targets)}")
    for what, wanted, fact in (
        ("arch", requirements.arch, profile.arch),
        ("os", requirements.os, profile.os),
    ):
        if wanted and fact is not None and fact.value not in wanted:
            reasons.append(f"needs {what} {' or '.join(wanted)}, the device has {fact.value}")
    ram = profile.ram_bytes
    if ram is not None and ram.value < requirements.ram_bytes:
        reasons.append(f"needs {requirements.ram_bytes:,} bytes of RAM, the device has {ram.value:,}")
    if limits.artifact_bytes is not None and artifact_bytes > limits.artifact_bytes:
        reasons.append(f"the file has {artifact_bytes:,} bytes, the budget is {limits.artifact_bytes:,}")
    if limits.ram_bytes is not None and peak_memory_bytes is not None and peak_memory_bytes > limits.ram_bytes:
        reasons.append(f"takes {peak_memory_bytes:,} bytes at its peak, the budget is {limits.ram_bytes:,}")
    return tuple(reasons)
