"""Names of tensors that Core ML accepts: letters, digits and underscores, not beginning with a digit."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["coreml_names"]


def coreml_names(names: Iterable[str]) -> dict[str, str]:
    """A name that Core ML accepts for each of ``names``; the same one where it is accepted as it is.

    Any other character becomes ``_``, and ``_`` is put before a first digit, as coremltools itself does; a number is
    added where two names would become one (``a.b`` and ``a/b`` become ``a_b`` and ``a_b_2``). Pure, and decided by the
    names' order alone, so that whoever holds a model's names can find the package's. Names that are fine come first.
    """
    wanted = list(names)
    plain = {name: _plain(name) for name in wanted}
    taken = {name for name in wanted if plain[name] == name}
    result: dict[str, str] = {}
    for name in wanted:
        candidate, number = plain[name], 2
        while candidate in taken and candidate != name:
            candidate, number = f"{plain[name]}_{number}", number + 1
        taken.add(candidate)
        result[name] = candidate
    return result


def _plain(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{plain}" if plain[:1].isdigit() or not plain else plain
