"""Names that travel between machines: models, channels, files, releases, and the paths that are made of them.

Everything here is ASCII with one spelling, so no two names differ only in case folding, Unicode form or path syntax.
A function takes what a stranger wrote and returns it unchanged, or raises `InvalidName`.
"""

from __future__ import annotations

import re

from edge_runtime.bundle.errors import InvalidName
from edge_runtime.bundle.limits import MAX_RELEASE

__all__ = [
    "CARD_FILE",
    "MANIFEST_FILE",
    "MAX_RELEASE",
    "POLICY_FILE",
    "RELEASE_FILE",
    "check_channel",
    "check_file",
    "check_model",
    "check_release",
    "delta_file",
    "golden_file",
    "plan_path",
    "policy_path",
    "split_target_path",
    "target_path",
]

MANIFEST_FILE = "manifest.json"
RELEASE_FILE = "release.json"
POLICY_FILE = "policy.json"
CARD_FILE = "card.md"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RELEASE = re.compile(r"[1-9][0-9]{0,9}")
# Windows opens a device for these, whatever the folder and the extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_model(name: str) -> str:
    """A model's name: 1 to 64 of ``a-z 0-9 -``, no hyphen at either end, not a Windows device name."""
    return _check_label(name, "model name")


def check_channel(name: str) -> str:
    """A channel's name; the grammar is that of `check_model`."""
    return _check_label(name, "channel name")


def check_file(name: str) -> str:
    """One path component: 1 to 128 of ``A-Z a-z 0-9 . _ -``, no dot at either end, no hyphen in front, and
    not a Windows device name."""
    if not isinstance(name, str) or not _FILE.fullmatch(name) or name.endswith("."):
        raise InvalidName(
            f"{_show(name)} is not a file name: use 1 to 128 of A-Z a-z 0-9 . _ -, no dot at either end, no - in front"
        )
    if _DEVICE.fullmatch(name):
        raise InvalidName(f"{_show(name)} is not a file name: Windows reserves it for a device")
    return name


def check_release(number: int) -> int:
    """A release number: an int (not a bool) from 1 to 2**31 - 1."""
    if type(number) is not int or not 1 <= number <= MAX_RELEASE:
        raise InvalidName(f"{_show(number)} is not a release number: use a whole number from 1 to {MAX_RELEASE}")
    return number


def target_path(model: str, release: int, file: str) -> str:
    """The TUF target path of a release's file: ``models/<model>/<release>/<file>``."""
    return f"models/{check_model(model)}/{check_release(release)}/{check_file(file)}"


def policy_path(model: str) -> str:
    """The TUF target path of a model's floor and revocations: ``models/<model>/policy.json``."""
    return f"models/{check_model(model)}/{POLICY_FILE}"


def plan_path(channel: str, model: str) -> str:
    """The TUF target path of a rollout plan: ``rollouts/<channel>/<model>.json``."""
    return f"rollouts/{check_channel(channel)}/{check_model(model)}.json"


def split_target_path(path: str) -> tuple[str, int, str]:
    """The inverse of `target_path`: ``(model, release, file)``. The release has one spelling: no sign, no leading 0."""
    parts = path.split("/") if isinstance(path, str) else []
    if len(parts) != 4 or parts[0] != "models" or not _RELEASE.fullmatch(parts[2]):
        raise InvalidName(f"{_show(path)} is not a path like models/<model>/<release>/<file>")
    return check_model(parts[1]), check_release(int(parts[2])), check_file(parts[3])


def golden_file(artifact_file: str) -> str:
    """The file name of an artifact's golden examples."""
    return check_file(f"{artifact_file}.golden.npz")


def delta_file(artifact_file: str, from_release: int) -> str:
    """The file name of the delta that turns ``from_release``'s artifact of this name into this release's."""
    return check_file(f"{artifact_file}.from-{check_release(from_release)}.delta")


def _check_label(name: str, what: str) -> str:
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        raise InvalidName(f"{_show(name)} is not a {what}: use 1 to 64 of a-z 0-9 - and no hyphen at either end")
    if _DEVICE.fullmatch(name):
        raise InvalidName(f"{_show(name)} is not a {what}: Windows reserves it for a device")
    return name


def _show(value: object) -> str:
    """The offending value, safe to print and short: it may be hostile."""
    text = ascii(value) if isinstance(value, str) else type(value).__name__
    if type(value) is int and -(2**63) <= value < 2**63:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
