"""Errors of the bundle.

EdgeshipError                      every error that this project raises on purpose
└── BundleError                    a bundle, or a file of one, that must not be used
    ├── InvalidName                a model, channel, file or entry name outside the grammar
    ├── ManifestError              a document (manifest, release.json, policy.json) that breaks the format
    │   └── UnsupportedFormat      a format version or a critical key that this reader does not know
    └── ArchiveError               an archive that is damaged, hostile or not a bundle
        ├── BundleTooLarge         a cap on entries, bytes or ratio was passed
        └── DigestMismatch         a file's size or sha256 is not the one its manifest states
"""

from __future__ import annotations

__all__ = [
    "ArchiveError",
    "BundleError",
    "BundleTooLarge",
    "DigestMismatch",
    "EdgeshipError",
    "InvalidName",
    "ManifestError",
    "UnsupportedFormat",
]


class EdgeshipError(Exception):
    """Root of every error that this project raises on purpose. The text says what to do next."""


class BundleError(EdgeshipError):
    """A bundle, or a file of one, that must not be used."""


class InvalidName(BundleError):
    """A model, channel, file or entry name outside the grammar of FORMAT.md."""


class ManifestError(BundleError):
    """A document that breaks the format. ``key_path`` says where, as in ``artifacts[0].sha256``."""

    def __init__(self, message: str, *, key_path: str = "") -> None:
        super().__init__(f"{key_path}: {message}" if key_path else message)
        self.key_path = key_path


class UnsupportedFormat(ManifestError):
    """A format version or a critical key that this reader does not know: update the runtime."""


class ArchiveError(BundleError):
    """An archive that is damaged, hostile or not a bundle."""


class BundleTooLarge(ArchiveError):
    """A cap on entries, bytes or ratio was passed."""


class DigestMismatch(ArchiveError):
    """A file's size or sha256 is not the one its manifest states."""
