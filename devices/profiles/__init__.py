"""Real devices as data: one TOML file each, in which every number names its source and the date it was seen.

Used for budgets (what a model may weigh on a device), to check requirements, and by the simulator. Nothing here is
measured by this project: a ``reference`` is what somebody published, and what is computed from it is called estimated.
"""

from __future__ import annotations

from devices.profiles.fitting import ARTIFACT_SHARE, RAM_SHARE, Budgets, Estimate, budgets, estimated_latency, matches
from devices.profiles.profile import Kind, Profile, Reference, Source, Sourced
from devices.profiles.reading import load_profile, profile_names, read_profile

__all__ = [
    "ARTIFACT_SHARE",
    "RAM_SHARE",
    "Budgets",
    "Estimate",
    "Kind",
    "Profile",
    "Reference",
    "Source",
    "Sourced",
    "budgets",
    "estimated_latency",
    "load_profile",
    "matches",
    "profile_names",
    "read_profile",
]
