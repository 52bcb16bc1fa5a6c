"""Whose keys sign what: the roles of people, and what the server signs by itself."""

from __future__ import annotations

__all__ = ["KINDS", "ONLINE_USES"]

KINDS = ("root", "targets", "releases")
ONLINE_USES = ("rollouts", "snapshot", "timestamp")
