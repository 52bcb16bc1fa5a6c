"""The built-in checks: what a careful release manager looks for in a manifest. Pure.

The manifest's reader has refused already what breaks FORMAT.md: no artifact, an empty owner. What is here may be a
valid manifest, and still not be ready for a fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from edge_runtime.bundle import Artifact, Manifest, TensorSpec
from model_server.releases.readiness.report import Check

__all__ = ["CheckName", "builtin_checks"]

_FLOAT = ("fp32", "fp16")
_ROUNDING = 1e-9  # 0.9 - 0.88 is a little more than 0.02
_NOT_STATED = "not stated"  # what edgeship-convert writes for what nobody has said


class CheckName(StrEnum):
    OWNER = "owner"
    MEASURED = "measured"
    ACCURACY_KEPT = "accuracy-kept"
    PERSONAL_DATA = "personal-data"
    INTERFACE_KEPT = "interface-kept"


def builtin_checks(
    manifest: Manifest, newest: Manifest | None, *, max_accuracy_drop: float | None, allow_interface_change: bool
) -> tuple[Check, ...]:
    """Every check, passed or not. ``newest`` is the newest published release of the model; ``max_accuracy_drop`` is a
    share (0.02 are two points), None for any."""
    return (
        _owner(manifest),
        _measured(manifest),
        _accuracy_kept(manifest, max_accuracy_drop),
        _personal_data(manifest),
        _interface_kept(manifest, newest, allowed=allow_interface_change),
    )


def _owner(manifest: Manifest) -> Check:
    missing = [
        what
        for what, text in (("owner", manifest.owner), ("contact", manifest.contact))
        if text.strip().lower() in ("", _NOT_STATED)
    ]
    detail = f"no {' and no '.join(missing)} is stated" if missing else f"{manifest.owner}, {manifest.contact}"
    return Check(name=CheckName.OWNER, passed=not missing, detail=detail)


def _measured(manifest: Manifest) -> Check:
    """Accuracy; where no artifact has one, because the held-out rows had no labels, how far it is from its source."""
    labelled = any(artifact.measured.accuracy is not None for artifact in manifest.artifacts)
    missing = [artifact.kind for artifact in manifest.artifacts if not _is_measured(artifact, labelled=labelled)]
    what = "accuracy" if labelled else "agreement with the source"
    return Check(
        name=CheckName.MEASURED,
        passed=not missing,
        detail=f"no {what} on held-out rows of {', '.join(missing)}" if missing else f"{what} of every artifact",
    )


def _is_measured(artifact: Artifact, *, labelled: bool) -> bool:
    measured = artifact.measured
    values = (measured.accuracy,) if labelled else (measured.decision_agreement, measured.max_abs_error)
    return measured.rows > 0 and any(value is not None for value in values)


def _accuracy_kept(manifest: Manifest, limit: float | None) -> Check:
    def check(passed: bool, detail: str) -> Check:
        return Check(name=CheckName.ACCURACY_KEPT, passed=passed, detail=detail)

    if limit is None:
        return check(True, "no limit is set")
    known = {each.kind: each.measured.accuracy for each in manifest.artifacts if each.measured.accuracy is not None}
    floats = [each.measured.accuracy for each in manifest.artifacts if each.precision in _FLOAT]
    sources = [each.measured.source_accuracy for each in manifest.artifacts]
    reference = max((value for value in floats + sources if value is not None), default=None)
    if reference is None:
        return check(False, "neither a float artifact nor the source has a measured accuracy to compare with")
    lost = [f"{kind} {value:.4f}" for kind, value in known.items() if reference - value > limit + _ROUNDING]
    if lost:
        return check(False, f"{', '.join(lost)}: more than {limit:g} below {reference:.4f}, the accuracy in float")
    return check(True, f"at most {limit:g} below {reference:.4f}, the accuracy in float")


def _personal_data(manifest: Manifest) -> Check:
    lineage = manifest.lineage
    purpose = (lineage.consent_purpose or "").strip()
    if lineage.personal_data and not purpose:
        detail = "trained on personal data, and no purpose is stated that people consented to"
    else:
        detail = f"consent for: {purpose}" if lineage.personal_data else "none"
    return Check(name=CheckName.PERSONAL_DATA, passed=bool(purpose) or not lineage.personal_data, detail=detail)


def _interface_kept(manifest: Manifest, newest: Manifest | None, *, allowed: bool) -> Check:
    """Apps that call the model were built for what is published."""
    name = CheckName.INTERFACE_KEPT
    if newest is None:
        return Check(name=name, passed=True, detail="the first release")
    changes = [
        *_changes("input", newest.inputs, manifest.inputs),
        *_changes("output", newest.outputs, manifest.outputs),
    ]
    if not changes:
        return Check(name=name, passed=True, detail=f"as release {newest.release}")
    said = f"not as release {newest.release}: {'; '.join(changes)}"
    return Check(name=name, passed=allowed, detail=f"{said} (allowed when it was staged)" if allowed else said)


def _changes(what: str, before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[str]:
    old, new = ({tensor.name: tensor for tensor in tensors} for tensors in (before, after))
    for name in old.keys() - new.keys():
        yield f"{what} {name} is gone"
    for name in new.keys() - old.keys():
        yield f"{what} {name} is new"
    for name in sorted(old.keys() & new.keys()):
        if old[name].dtype != new[name].dtype:
            yield f"{what} {name} is {new[name].dtype}, was {old[name].dtype}"
        if len(old[name].shape) != len(new[name].shape):
            yield f"{what} {name} has {len(new[name].shape)} axes, had {len(old[name].shape)}"
