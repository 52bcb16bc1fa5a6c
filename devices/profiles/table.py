"""`python -m devices profiles`: every known device in a row, or every number of one with its source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from devices.profiles.fitting import budgets
from devices.profiles.profile import Profile, Sourced
from devices.profiles.reading import load_profile, profile_names

__all__ = ["show_profiles"]


def show_profiles(names: Sequence[str], *, as_json: bool) -> int:
    """Print ``names``, or a table of all that ship; return the exit code. Raises `ConfigurationError`."""
    profiles = [load_profile(name) for name in names or profile_names()]
    if as_json:
        for profile in profiles:
            limits = dataclasses.asdict(budgets(profile))
            print(json.dumps(dataclasses.asdict(profile) | {"budgets": limits}, default=str))
    elif names:
        for profile in profiles:
            _describe(profile)
    else:
        print(f"{'name':22} {'RAM':>7} {'storage':>7} {'cores':>5} {'GHz':>5}  {'targets':19} for a model: RAM, file")
        for profile in profiles:
            print(_row(profile))
    return 0


def _row(profile: Profile) -> str:
    limits = budgets(profile)
    ram, storage, cores, clock = (
        None if fact is None else fact.value
        for fact in (profile.ram_bytes, profile.storage_bytes, profile.cores, profile.clock_hz)
    )
    targets = "too small" if profile.too_small else ",".join(limits.targets)
    budget = "" if profile.too_small else f"{_size(limits.ram_bytes)}, {_size(limits.artifact_bytes)}"
    return (
        f"{profile.name:22} {_size(ram):>7} {_size(storage, 1000):>7} {cores or '?':>5} "
        f"{f'{clock / 1e9:g}' if clock else '?':>5}  {targets:19} {budget}"
    ).rstrip()


def _size(value: float | None, thousand: int = 1024) -> str:
    if value is None:
        return "?"
    for unit in ("B", "KB", "MB"):
        if value < thousand:
            return f"{value:.0f} {unit}"
        value /= thousand
    return f"{value:.0f} GB"


def _describe(profile: Profile) -> None:
    print(f"{profile.name}: {profile.title}")
    for field in dataclasses.fields(profile):
        fact = getattr(profile, field.name)
        if isinstance(fact, Sourced):
            seen = "; ".join(f"{source.publisher}: {source.title}, seen {source.seen}" for source in fact.sources)
            value = (", ".join(fact.value) or "none") if isinstance(fact.value, tuple) else fact.value
            print(f"  {field.name}: {value}{f' ({fact.note})' if fact.note else ''}  [{seen}]")
    for reference in profile.references:
        how = ", ".join(str(x) for x in (reference.engine, reference.on, reference.precision, reference.note) if x)
        print(
            f"  published: {reference.model} {reference.latency_ms:g} ms ({how})  "
            f"[{reference.source.publisher}: {reference.source.title}, seen {reference.source.seen}]"
        )
