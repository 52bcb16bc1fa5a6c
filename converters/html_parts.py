"""Pieces of a page: tables that scroll by themselves on a phone, lists of terms, escaped text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Markup", "Wide", "listing", "number", "table", "terms", "text"]


class Markup(str):
    """Markup that is meant; everything else is escaped."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Wide:
    """One cell in the place of several: where there is no number, the reason has room."""

    text: str
    columns: int


def text(value: object) -> str:
    return value if isinstance(value, Markup) else escape(str(value), quote=True)


def number(value: float | None, form: str) -> str:
    """Formatted, or nothing for None."""
    return "" if value is None else format(value, form)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    """The first cell of a row is its heading, and stays in sight while the others scroll; ``numbers`` are the columns
    that are aligned to the right. The box that scrolls can be reached by keyboard."""
    right = set(numbers)

    def cell(index: int, value: object) -> str:
        if isinstance(value, Wide):
            return f"<td class='quiet wide' colspan={value.columns}>{text(value.text)}</td>"
        kind = " class=n" if index in right else ""
        return f"<td{kind}>{text(value)}</td>" if index else f"<th scope=row>{text(value)}</th>"

    top = "".join(
        f"<th scope=col{' class=n' if index in right else ''}>{text(name)}</th>" for index, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(cell(index, value) for index, value in enumerate(row))}</tr>" for row in rows)
    named = text(caption)
    return (
        f"<div class=scroll role=region tabindex=0 aria-label='{named}'><table><caption>{named}</caption>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def terms(meanings: Iterable[tuple[str, str]]) -> str:
    """Words of the table above, and what they mean."""
    lines = "".join(f"<div><dt>{text(term)}</dt><dd>{text(meaning)}</dd></div>" for term, meaning in meanings)
    return f"<dl>{lines}</dl>" if lines else ""


def listing(title: str, items: Iterable[str]) -> str:
    """A heading and a list, or nothing."""
    lines = "".join(f"<li>{text(item)}</li>" for item in items)
    return f"<h2>{text(title)}</h2><ul>{lines}</ul>" if lines else ""
