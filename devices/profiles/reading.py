"""Read a profile and refuse what is wrong with it, by file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, NoReturn, get_args

from devices.profiles.profile import Kind, Place, Profile, Reference, Source, Sourced
from edge_runtime.bundle.manifest import Precision, Target
from edge_runtime.errors import ConfigurationError

__all__ = ["load_profile", "profile_names", "read_profile"]

FOLDER = Path(__file__).parent
POSITIVE, TEXT, TEXTS = "a number above 0", "a text", "a list of texts"
FACTS = {
    "targets": f"a list of {', '.join(get_args(Target))}",
    "ram_bytes": POSITIVE,
    "storage_bytes": POSITIVE,
    "cpu": TEXT,
    "cores": POSITIVE,
    "clock_hz": POSITIVE,
    "isa": TEXTS,
    "npu_tops": POSITIVE,
    "arch": TEXT,
    "os": TEXT,
    "power_w": POSITIVE,
}
WHOLE = ("ram_bytes", "storage_bytes", "cores", "clock_hz")


def profile_names() -> tuple[str, ...]:
    """The devices that ship with Edgeship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_profile(name_or_path: str | Path) -> Profile:
    """One of `profile_names`, or a file of your own.

    Raises:
        ConfigurationError: there is no such profile, or its file is wrong; the text names the file and the key.
    """
    given = str(name_or_path)
    if given in profile_names():
        return read_profile(FOLDER / f"{given}.toml")
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise ConfigurationError(f"no device profile {given!r}: name one of {', '.join(profile_names())}, or a .toml")
    return read_profile(path)


def read_profile(path: Path) -> Profile:
    """Parse one file. Raises `ConfigurationError`."""
    try:
        node = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} is not a readable device profile: {error}") from error
    return _File(path, node).profile()


class _File:
    """One parsed file; every method that reads a key says that key when it refuses."""

    def __init__(self, path: Path, node: Mapping[str, Any]) -> None:
        self._path, self._node = path, node
        self._sources = {key: self._source(key, each) for key, each in self._table(node, "sources").items()}
        self._cited: set[str] = set()

    def profile(self) -> Profile:
        node = self._node
        self._only(node, {"name", "title", "kind", "facts", "sources", "references"}, "")
        if self._text(node, "name", "") != self._path.stem:
            self._refuse("name", f"must be the name of the file, {self._path.stem}")
        kind = self._text(node, "kind", "")
        if kind not in get_args(Kind):
            self._refuse("kind", f"must be one of {', '.join(get_args(Kind))}, not {kind}")
        facts = self._table(node, "facts")
        self._only(facts, set(FACTS), "facts.")
        if "targets" not in facts:
            self._refuse("facts.targets", "is missing; an empty list means that nothing of ours runs there")
        references = node.get("references", [])
        if not isinstance(references, list):
            self._refuse("references", "must be [[references]] tables")
        profile = Profile(
            name=self._path.stem,
            title=self._text(node, "title", ""),
            kind=kind,
            references=tuple(self._reference(f"references[{i}].", each) for i, each in enumerate(references)),
            **{name: self._fact(name, each) for name, each in facts.items()},
        )
        if unused := sorted(set(self._sources) - self._cited):
            self._refuse(f"sources.{unused[0]}", "is cited by nothing")
        return profile

    def _fact(self, name: str, node: Any) -> Sourced[Any]:
        key = f"facts.{name}"
        if not isinstance(node, dict) or "value" not in node:
            self._refuse(key, 'must be { value = …, source = "…" }')
        self._only(node, {"value", "source", "note"}, f"{key}.")
        value, wanted = node["value"], FACTS[name]
        if wanted == POSITIVE:
            right = self._positive(value) and (name not in WHOLE or isinstance(value, int))
        elif wanted == TEXT:
            right = isinstance(value, str) and bool(value)
        else:
            right = isinstance(value, list) and all(isinstance(each, str) for each in value)
            right = right and (name != "targets" or set(value) <= set(get_args(Target)))
        if not right:
            self._refuse(f"{key}.value", f"must be {wanted}, not {value!r}")
        cited = node.get("source", [])
        cited = [cited] if isinstance(cited, str) else cited
        if not cited:
            self._refuse(f"{key}.source", "is missing: a number without a source has no place here")
        return Sourced(
            value=tuple(value) if isinstance(value, list) else value,
            sources=tuple(self._cite(each, f"{key}.source") for each in cited),
            note=self._text(node, "note", f"{key}.") if "note" in node else None,
        )

    def _reference(self, key: str, node: Any) -> Reference:
        if not isinstance(node, dict):
            self._refuse(key.rstrip("."), "must be a table")
        optional = {"precision", "threads", "macs", "macs_source", "note"}
        self._only(node, {"model", "engine", "on", "latency_ms", "source"} | optional, key)
        for name, allowed in (("on", Place), ("precision", Precision)):
            if name in node and node[name] not in get_args(allowed):
                self._refuse(key + name, f"must be one of {', '.join(get_args(allowed))}, not {node[name]!r}")
        for name in ("latency_ms", "threads", "macs"):
            if (name in node or name == "latency_ms") and not self._positive(node.get(name)):
                self._refuse(key + name, f"must be {POSITIVE}, not {node.get(name)!r}")
        if ("macs" in node) != ("macs_source" in node):
            self._refuse(key + "macs_source", "and macs go together")
        return Reference(
            model=self._text(node, "model", key),
            engine=self._text(node, "engine", key),
            on=node.get("on") or self._refuse(key + "on", f"is missing; one of {', '.join(get_args(Place))}"),
            latency_ms=float(node["latency_ms"]),
            source=self._cite(node.get("source"), key + "source"),
            precision=node.get("precision"),
            threads=node.get("threads"),
            macs=node.get("macs"),
            macs_source=self._cite(node["macs_source"], key + "macs_source") if "macs_source" in node else None,
            note=self._text(node, "note", key) if "note" in node else None,
        )

    def _source(self, key: str, node: Any) -> Source:
        where = f"sources.{key}."
        if not isinstance(node, dict):
            self._refuse(where.rstrip("."), "must be a table")
        self._only(node, {"title", "publisher", "url", "seen"}, where)
        seen = node.get("seen")
        if not isinstance(seen, date) or isinstance(seen, datetime):
            self._refuse(where + "seen", f"must be the date it was seen, as in 2026-11-25, not {seen!r}")
        title, publisher, url = (self._text(node, name, where) for name in ("title", "publisher", "url"))
        return Source(key=key, title=title, publisher=publisher, url=url, seen=seen)

    def _cite(self, key: Any, where: str) -> Source:
        if not isinstance(key, str) or key not in self._sources:
            self._refuse(where, f"names {key!r}, but the file has [sources] {', '.join(self._sources) or 'none'}")
        self._cited.add(key)
        return self._sources[key]

    def _table(self, node: Mapping[str, Any], key: str) -> dict[str, Any]:
        table = node.get(key)
        if not isinstance(table, dict):
            self._refuse(key, "must be a table")
        return table

    def _text(self, node: Mapping[str, Any], key: str, where: str) -> str:
        text = node.get(key)
        if not isinstance(text, str) or not text:
            self._refuse(where + key, f"must be a text, not {text!r}")
        return text

    def _only(self, node: Mapping[str, Any], known: set[str], where: str) -> None:
        if strange := sorted(set(node) - known):
            self._refuse(where + strange[0], f"is not a key here; known are {', '.join(sorted(known))}")

    @staticmethod
    def _positive(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

    def _refuse(self, key: str, why: str) -> NoReturn:
        raise ConfigurationError(f"{self._path}: {key} {why}")
