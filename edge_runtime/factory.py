"""The model that an app ships with."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike

from edge_runtime.errors import ConfigurationError

__all__ = ["Factory"]


@dataclass(frozen=True, slots=True)
class Factory:
    """The bundle that an app ships, with the sha256 (hex) of the whole file, which the app pins."""

    path: str | PathLike[str]
    sha256: str = field(kw_only=True)

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ConfigurationError("Factory.sha256 must be the 64 lower-case hex digits of the bundle's sha256")
