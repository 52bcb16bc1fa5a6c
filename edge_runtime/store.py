"""The releases on a device: folders of verified files, and a state file that says what each is for.

    state.json, state.old.json   the slots (`edge_runtime.slots`), the last two versions
    slots/<release>/             manifest.json, one artifact, its golden file, release.json
    incoming/                    downloads that are not finished
    lock                         held while a `Store` is open

The transitions are pure functions of `slots`; this is the shell around them. Whatever happens between two writes, the
state on disk is one of the two around them, and a folder that it names is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime import slots as transitions
from edge_runtime.bundle import MANIFEST_FILE, RELEASE_FILE, Artifact, Golden, Manifest, ManifestError, read_manifest
from edge_runtime.disk import Disk, RealDisk, read_sealed, remove_folder, sealed
from edge_runtime.errors import SlotDamaged, StoreError
from edge_runtime.slots import Installed, Slots

__all__ = ["MANIFEST_FILE", "RELEASE_FILE", "Slot", "Store", "open_slot", "read_slots"]

STATE_FILE = "state.json"
OLD_STATE_FILE = "state.old.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One release on disk. The readers check size and sha256 and raise `SlotDamaged`."""

    manifest: Manifest
    artifact: Artifact
    path: Path
    manifest_sha256: str
    disk: Disk = field(repr=False, compare=False)

    @property
    def release(self) -> int:
        return self.manifest.release

    def read_artifact(self) -> bytes:
        return self._read(self.artifact)

    def read_golden(self) -> bytes:
        return self._read(self.artifact.golden)

    def _read(self, ref: Artifact | Golden) -> bytes:
        try:
            data = self.disk.read(self.path / ref.file)
        except FileNotFoundError as error:
            raise SlotDamaged(f"release {self.release}: {ref.file} is missing from {self.path}") from error
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise SlotDamaged(f"release {self.release}: {ref.file} in {self.path} is not the file that was verified")
        return data


class Store:
    """The state folder of one model on one device. Holds its lock until `close`; safe to use from several threads.

    Raises `StoreLocked` if another process or object has it open, and `StoreError` if the state file and its previous
    version are both damaged.
    """

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self.root = root
        self.disk: Disk = RealDisk() if disk is None else disk
        self._mutex = threading.RLock()
        self.disk.mkdir(root)
        self._unlock: Callable[[], None] | None = self.disk.lock(root / "lock")
        try:
            for folder in (self.folder, self.incoming):
                self.disk.mkdir(folder)
            if _read_state(root / STATE_FILE, self.disk) is None and _read_state(root / OLD_STATE_FILE, self.disk):
                # Damaged, and about to be moved over the version that is not.
                with contextlib.suppress(FileNotFoundError):
                    self.disk.unlink(root / STATE_FILE)
            self._slots = self._repaired(read_slots(root, self.disk))
            self._collect_garbage()
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> Path:
        return self.root / "slots"

    @property
    def incoming(self) -> Path:
        """Where unfinished downloads lie, on the file system of the slots."""
        return self.root / "incoming"

    @property
    def slots(self) -> Slots:
        return self._slots

    def close(self) -> None:
        """Give the lock back. Closing twice is fine."""
        with self._mutex:
            if self._unlock is not None:
                self._unlock()
                self._unlock = None

    def apply(self, transition: Callable[[Slots], Slots]) -> Slots:
        """Apply a transition of `slots`, durable when this returns, and remove folders that nothing names any more.

        Raises `StoreFull` or `StoreError`; the state is then what it was.
        """
        with self._mutex:
            after = transition(self._slots)
            if after != self._slots:
                self._write(after)
                self._collect_garbage()
            return after

    def start(self) -> Slots:
        """To be called before the active release is first used in a process: marks a trial as started, or rolls a
        crash-looping one back. The caller runs ``active`` of the result; compare it with `slots` before the call to
        see a rollback. Writes nothing when no trial is on."""
        return self.apply(transitions.start)

    def good(self, count: int, *, commit_after: int, release: int | None = None) -> bool:
        """``count`` good predictions of the active release. Returns whether this committed it. With ``release``,
        predictions of one that is no longer active count for nothing."""
        with self._mutex:
            tried, active = self._slots.trial is not None, self._slots.active
            if release is not None and (active is None or active.release != release):
                return False
            after = self.apply(lambda slots: transitions.good(slots, count, commit_after=commit_after))
            return tried and after.trial is None

    def ended_cleanly(self) -> None:
        """The process closes the active release in order."""
        self.apply(transitions.ended_cleanly)

    def roll_back(self) -> Slots:
        """The active release does not load, or must not run: back to the last good one, denied if it was on trial."""
        return self.apply(transitions.roll_back)

    def forget(self, release: int) -> Slots:
        """The files of ``release`` are damaged: act as if it had never been installed, so that it can be again."""
        return self.apply(lambda slots: transitions.without(slots, {release}))

    def install(self, manifest: bytes, artifact: Artifact, files: Mapping[str, bytes | Path]) -> Slot:
        """Make a slot and stage it. ``files`` holds the artifact's file and its golden file, and may hold
        ``release.json``, as bytes or as the path of a file on the same file system, which is moved.

        Everything is checked against ``manifest`` first and the folder appears whole or not at all. Raises
        `ManifestError`, `SlotDamaged` for bytes that are not the manifest's, `StoreFull` and `StoreError`.
        """
        parsed = read_manifest(manifest)
        if artifact not in parsed.artifacts:
            raise StoreError(f"{artifact.file} is not an artifact of {parsed.model} release {parsed.release}")
        refs: dict[str, Artifact | Golden | None] = {
            artifact.file: artifact,
            artifact.golden.file: artifact.golden,
        }
        for name in (artifact.file, artifact.golden.file):
            if name not in files:
                raise StoreError(f"{name} of {parsed.model} release {parsed.release} was not given")
        refs[RELEASE_FILE] = None
        if unknown := sorted(set(files) - set(refs)):
            raise StoreError(f"{unknown[0]!r} does not belong in a slot of {artifact.file}")
        installed = Installed(
            release=parsed.release, artifact=artifact.file, manifest_sha256=hashlib.sha256(manifest).hexdigest()
        )
        with self._mutex:
            if any(
                slot is not None and slot.release == parsed.release
                for slot in (self._slots.active, self._slots.previous)
            ):
                raise StoreError(f"release {parsed.release} is installed already")
            self.apply(lambda slots: transitions.without(slots, {parsed.release}))
            self._make_folder(parsed.release, {MANIFEST_FILE: manifest, **files}, refs)
            self.apply(lambda slots: transitions.stage(slots, installed))
        return self.slot(parsed.release)

    def slot(self, release: int) -> Slot:
        """A release that the state names, with its manifest verified. Raises `SlotDamaged`, and `StoreError` if the
        state does not name it."""
        slots = self._slots
        installed = next(
            (s for s in (slots.active, slots.previous, slots.staged) if s is not None and s.release == release), None
        )
        if installed is None:
            raise StoreError(f"release {release} is not installed in {self.root}")
        return open_slot(self._path(release), installed.artifact, installed.manifest_sha256, disk=self.disk)

    def _path(self, release: int) -> Path:
        return self.folder / str(release)

    def _make_folder(
        self, release: int, files: Mapping[str, bytes | Path], refs: Mapping[str, Artifact | Golden | None]
    ) -> None:
        new = self.folder / f".new-{release}"
        remove_folder(self.disk, new)
        remove_folder(self.disk, self._path(release))
        try:
            self.disk.mkdir(new)
            # Moved files last: if the disk is full, a download is still where it was.
            for name, content in sorted(files.items(), key=lambda item: isinstance(item[1], Path)):
                ref = refs.get(name)
                if ref is not None:
                    self._check(release, ref, content)
                if isinstance(content, Path):
                    self.disk.fsync(content)
                    self.disk.rename(content, new / name)
                else:
                    self.disk.write(new / name, content)
            self.disk.fsync(new)
            self.disk.rename(new, self._path(release))
            self.disk.fsync(self.folder)
        except (StoreError, FileNotFoundError):
            with contextlib.suppress(StoreError):
                remove_folder(self.disk, new)
            raise

    def _check(self, release: int, ref: Artifact | Golden, content: bytes | Path) -> None:
        digest = hashlib.sha256()
        if isinstance(content, Path):
            size = 0
            with self.disk.open(content) as file:
                while chunk := file.read(_CHUNK):
                    size += len(chunk)
                    digest.update(chunk)
        else:
            size = len(content)
            digest.update(content)
        if size != ref.bytes or digest.hexdigest() != ref.sha256:
            raise SlotDamaged(
                f"release {release}: {ref.file} does not have the size and digest that its manifest states"
            )

    def _write(self, slots: Slots) -> None:
        state, old, new = (self.root / name for name in (STATE_FILE, OLD_STATE_FILE, f".{STATE_FILE}.new"))
        try:
            self.disk.write(new, sealed(slots.to_body()))
            if self.disk.exists(state):
                self.disk.rename(state, old)
            self.disk.rename(new, state)
        except StoreError:
            with contextlib.suppress(StoreError, FileNotFoundError):
                self.disk.unlink(new)
            raise
        # From here on a restart may see the new state, so this object must act on it too.
        self._slots = slots
        self.disk.fsync(self.root)

    def _repaired(self, slots: Slots) -> Slots:
        """Forget slots whose folder is gone, so that a lost folder costs one release and not the device."""
        gone = {release for release in transitions.referenced(slots) if not self.disk.exists(self._path(release))}
        return transitions.without(slots, gone)

    def _collect_garbage(self) -> None:
        keep = {str(release) for release in transitions.referenced(self._slots)}
        for name in self.disk.listdir(self.folder):
            if name not in keep:
                # A folder that cannot be removed now is tried again at the next transition or start.
                with contextlib.suppress(StoreError, FileNotFoundError):
                    remove_folder(self.disk, self.folder / name)


def open_slot(path: Path, artifact: str, manifest_sha256: str, *, disk: Disk | None = None) -> Slot:
    """The slot in the folder ``path``, whose name is its release. Raises `SlotDamaged`."""
    disk = RealDisk() if disk is None else disk
    try:
        data = disk.read(path / MANIFEST_FILE)
    except FileNotFoundError as error:
        raise SlotDamaged(f"release {path.name}: {path / MANIFEST_FILE} is missing") from error
    if hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise SlotDamaged(f"release {path.name}: {path / MANIFEST_FILE} is not the manifest that was verified")
    try:
        manifest = read_manifest(data)
    except ManifestError as error:
        raise SlotDamaged(f"release {path.name}: this runtime cannot read its manifest: {error}") from error
    found = next((a for a in manifest.artifacts if a.file == artifact), None)
    if found is None:
        raise SlotDamaged(f"release {path.name}: its manifest has no artifact {artifact}")
    return Slot(manifest=manifest, artifact=found, path=path, manifest_sha256=manifest_sha256, disk=disk)


def read_slots(root: Path, disk: Disk | None = None) -> Slots:
    """The state in ``root``, without its lock: for showing it. A damaged state file gives way to its last version.

    Raises `StoreError` if none that is there can be read.
    """
    disk = RealDisk() if disk is None else disk
    files = [root / STATE_FILE, root / OLD_STATE_FILE]
    for file in files:
        if (slots := _read_state(file, disk)) is not None:
            return slots
    if any(disk.exists(file) for file in files):
        raise StoreError(
            f"{files[0]} and its last version are damaged: remove the folder {root} and start again with a factory "
            "bundle or a server"
        )
    return Slots()


def _read_state(file: Path, disk: Disk) -> Slots | None:
    body = read_sealed(disk, file)
    if body is None:
        return None
    try:
        return Slots.from_body(body)
    except ManifestError:
        return None
