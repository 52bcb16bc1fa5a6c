"""The slots of a device as a state machine. Pure: every function takes a state and returns the next one.

stage ──► (canary) ──► activate ──► start, good … ──► committed          the new last-good release
                           │
                           ├── 3 starts in a row that each ended uncleanly before a first good prediction,
                           │   or it does not load: back to `previous`, and denied
                           └── the plan says so: `switch_back`
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from edge_runtime.bundle.limits import MAX_REVOKED
from edge_runtime.bundle.names import MAX_RELEASE, check_file
from edge_runtime.bundle.reading import sha256
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node

__all__ = [
    "CRASH_LOOP",
    "Denied",
    "Installed",
    "Sighting",
    "Slots",
    "Trial",
    "activate",
    "adopt",
    "age_s",
    "deny",
    "disable",
    "ended_cleanly",
    "good",
    "is_denied",
    "referenced",
    "restrict",
    "roll_back",
    "sight",
    "stage",
    "start",
    "switch_back",
    "without",
]

CRASH_LOOP = 3  # unclean starts in a row before a first good prediction
MAX_DENIED = 32
MAX_SIGHTINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A release in its folder ``slots/<release>``: the artifact that was chosen, and the digest of its manifest."""

    release: int
    artifact: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The active release is being tried. ``good`` counts good predictions over all starts; ``unclean`` counts starts
    in a row that ended uncleanly before a good prediction; ``started``: a start has not ended and has none yet.
    ``rollout`` and ``attempt`` are those of the plan that brought it."""

    attempt: int
    rollout: str = ""
    good: int = 0
    unclean: int = 0
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A release that failed here, and the rollout and attempt of the plan that brought it."""

    release: int
    attempt: int
    rollout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """This device first verified ``release`` ``age_s`` seconds of powered-on time before its boot clock read
    ``boot_s``."""

    release: int
    age_s: float
    boot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What is on the device. ``active`` runs; while ``trial`` is set it is not committed, and ``previous`` is the last
    good release. ``settled``: some release was once committed here. ``disabled``: the plan switched local inference
    off. ``min_release`` and ``revoked`` are the last floor and revocations seen."""

    active: Installed | None = None
    previous: Installed | None = None
    staged: Installed | None = None
    trial: Trial | None = None
    denied: tuple[Denied, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    settled: bool = False
    disabled: bool = False
    min_release: int = 1
    revoked: tuple[int, ...] = ()

    def to_body(self) -> dict[str, object]:
        body: dict[str, object] = {"format": 1}
        return body | asdict(self)

    @classmethod
    def from_body(cls, body: Mapping[str, object]) -> Slots:
        """The inverse of `to_body`. Raises `ManifestError` with the key path."""
        node = Node(dict(body))
        node.get("format").integer(1, 1)
        return cls(
            active=node.get("active").optional(_installed),
            previous=node.get("previous").optional(_installed),
            staged=node.get("staged").optional(_installed),
            trial=node.get("trial").optional(_trial),
            denied=tuple(_denied(entry) for entry in node.get("denied").items(0, MAX_DENIED)),
            sightings=tuple(_sighting(entry) for entry in node.get("sightings").items(0, MAX_SIGHTINGS)),
            settled=node.get("settled").boolean(),
            disabled=node.get("disabled").boolean(),
            min_release=node.get("min_release").integer(1, MAX_RELEASE),
            revoked=tuple(entry.integer(1, MAX_RELEASE) for entry in node.get("revoked").items(0, MAX_REVOKED)),
        )


def stage(slots: Slots, installed: Installed) -> Slots:
    """``installed`` is on disk and verified; it replaces what was staged."""
    return replace(slots, staged=installed)


def activate(slots: Slots, *, attempt: int, rollout: str = "", keep: bool = True) -> Slots:
    """Try the staged release. What was active becomes ``previous`` if it was committed; a release that was itself on
    trial is never a last good one. ``keep`` False keeps neither: there is then nothing to go back to."""
    last_good = slots.previous if slots.trial is not None else slots.active
    return replace(
        slots,
        active=slots.staged,
        previous=last_good if keep and last_good != slots.staged else None,
        staged=None,
        trial=Trial(attempt=attempt, rollout=rollout),
    )


def adopt(slots: Slots) -> Slots:
    """Take the staged release without a trial: the factory model, for which there is nothing to go back to."""
    return replace(slots, active=slots.staged, previous=None, staged=None, trial=None, settled=True)


def start(slots: Slots) -> Slots:
    """A process is about to use the active release. Rolls back instead, if it crash-looped."""
    trial = slots.trial
    if trial is None:
        return slots
    unclean = trial.unclean + 1 if trial.started else trial.unclean
    if unclean >= CRASH_LOOP:
        return roll_back(slots)
    return replace(slots, trial=replace(trial, unclean=unclean, started=True))


def good(slots: Slots, count: int, *, commit_after: int) -> Slots:
    """``count`` more good predictions of the active release; with ``commit_after`` of them in all it is committed."""
    trial = slots.trial
    if trial is None or count < 1:
        return slots
    if trial.good + count >= commit_after:
        return replace(slots, trial=None, settled=True)
    return replace(slots, trial=replace(trial, good=trial.good + count, unclean=0, started=False))


def ended_cleanly(slots: Slots) -> Slots:
    """The process that started the active release closed it in order, which breaks a row of unclean ends."""
    if slots.trial is None:
        return slots
    return replace(slots, trial=replace(slots.trial, unclean=0, started=False))


def roll_back(slots: Slots) -> Slots:
    """The active release failed here: back to the last good one. A release on trial is denied for its attempt."""
    denied = slots
    if slots.active is not None and slots.trial is not None:
        denied = deny(slots, slots.active.release, slots.trial.attempt, slots.trial.rollout)
    return switch_back(denied)


def switch_back(slots: Slots) -> Slots:
    """Return to ``previous``, which was verified and ran well here. Without one, nothing is active."""
    return replace(slots, active=slots.previous, previous=None, trial=None)


def disable(slots: Slots, disabled: bool) -> Slots:
    """The plan switches local inference off, or on again."""
    return replace(slots, disabled=disabled)


def deny(slots: Slots, release: int, attempt: int, rollout: str = "") -> Slots:
    """Do not take ``release`` again until the plan's rollout or attempt is another one."""
    others = tuple(entry for entry in slots.denied if entry.release != release)
    return replace(slots, denied=(*others, Denied(release=release, attempt=attempt, rollout=rollout))[-MAX_DENIED:])


def is_denied(slots: Slots, release: int, attempt: int, rollout: str = "") -> bool:
    return Denied(release=release, attempt=attempt, rollout=rollout) in slots.denied


def without(slots: Slots, gone: Collection[int]) -> Slots:
    """The folders of the releases ``gone`` are lost, damaged or no longer allowed: the device acts as if they were
    never there. An active one gives way to ``previous``."""
    previous = None if slots.previous is not None and slots.previous.release in gone else slots.previous
    staged = None if slots.staged is not None and slots.staged.release in gone else slots.staged
    if slots.active is None or slots.active.release not in gone:
        return replace(slots, previous=previous, staged=staged)
    return replace(slots, active=previous, previous=None, staged=staged, trial=None)


def restrict(slots: Slots, *, min_release: int, revoked: Iterable[int]) -> Slots:
    """Keep the floor and the revocations, and drop every slot that they forbid."""
    revoked = tuple(sorted(revoked))
    here = [entry.release for entry in (slots.active, slots.previous, slots.staged) if entry is not None]
    forbidden = {release for release in here if release < min_release or release in revoked}
    return replace(without(slots, forbidden), min_release=min_release, revoked=revoked)


def tighten(slots: Slots, *, min_release: int, revoked: Iterable[int]) -> Slots:
    """As `restrict`, and what was known before is kept too. The list has a cap; the newest releases stay in it."""
    floor = max(slots.min_release, min_release)
    names = sorted(release for release in {*slots.revoked, *revoked} if release >= floor)
    return restrict(slots, min_release=floor, revoked=names[-MAX_REVOKED:])


def sight(slots: Slots, releases: Iterable[int], boot_s: float) -> Slots:
    """Bring the ages of ``releases`` up to now, starting those seen for the first time at 0; forget all others."""
    wanted = list(dict.fromkeys(releases))[:MAX_SIGHTINGS]
    return replace(
        slots,
        sightings=tuple(
            Sighting(release=release, age_s=age_s(slots, release, boot_s), boot_s=boot_s) for release in wanted
        ),
    )


def age_s(slots: Slots, release: int, boot_s: float) -> float:
    """Powered-on seconds since this device first verified ``release``; 0 if it did not yet.

    A boot clock that reads less than it did means another boot, of which every second counts. One that reads more may
    also be another boot; then the difference is at most the true time, so an age is never too large.
    """
    for entry in slots.sightings:
        if entry.release == release:
            return entry.age_s + (boot_s - entry.boot_s if boot_s >= entry.boot_s else boot_s)
    return 0.0


def referenced(slots: Slots) -> frozenset[int]:
    """The releases whose folders must stay."""
    return frozenset(entry.release for entry in (slots.active, slots.previous, slots.staged) if entry is not None)


def _installed(node: Node) -> Installed:
    return Installed(
        release=node.get("release").integer(1, MAX_RELEASE),
        artifact=node.get("artifact").name(check_file),
        manifest_sha256=sha256(node.get("manifest_sha256")),
    )


def _trial(node: Node) -> Trial:
    return Trial(
        attempt=node.get("attempt").integer(0, MAX_INTEGER),
        rollout=node.get("rollout").text(0, 64),
        good=node.get("good").integer(0, MAX_INTEGER),
        unclean=node.get("unclean").integer(0, CRASH_LOOP),
        started=node.get("started").boolean(),
    )


def _denied(node: Node) -> Denied:
    return Denied(
        release=node.get("release").integer(1, MAX_RELEASE),
        attempt=node.get("attempt").integer(0, MAX_INTEGER),
        rollout=node.get("rollout").text(0, 64),
    )


def _sighting(node: Node) -> Sighting:
    return Sighting(
        release=node.get("release").integer(1, MAX_RELEASE),
        age_s=node.get("age_s").number(0),
        boot_s=node.get("boot_s").number(0),
    )
