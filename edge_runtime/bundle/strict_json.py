"""JSON from a stranger: read strictly, with the key path in every error.

Two JSON readers that disagree about a document are an attack, so whatever RFC 8259 leaves to the reader is refused:
duplicate keys, numbers beyond a double or 2**53 - 1, NaN and infinities, lone surrogates, a byte order mark.
The result is a `Node`, a cursor that knows where in the document it stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from edge_runtime.bundle.errors import InvalidName, ManifestError
from edge_runtime.bundle.limits import MAX_DEPTH, MAX_INTEGER

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "Node", "canonical", "parse"]

T = TypeVar("T")

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Control characters, line separators and bidirectional overrides: they forge terminal output and log lines.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_UNPRINTABLE_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Repeated(dict[str, object]):
    """An object in which ``key`` appears twice; a marker, since the parser's hook does not know the key path."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


class _NotANumber:
    """A number that this reader refuses; ``text`` is how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text if len(text) <= 24 else text[:21] + "..."


class Node:
    """A JSON value and where it stands. The methods check the value's type and bounds and return it, or raise
    `ManifestError` with the key path."""

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str = "") -> None:
        self.value = value
        self.path = path

    def fail(self, message: str) -> ManifestError:
        """The error to raise about this value."""
        return ManifestError(message, key_path=self.path)

    @property
    def is_null(self) -> bool:
        return self.value is None

    def keys(self) -> tuple[str, ...]:
        return tuple(self._object())

    def get(self, key: str) -> Node:
        """The member ``key`` of an object; a missing member reads as null, which only `optional` accepts."""
        child = _join(self.path, key)
        members = self._object()
        if key not in members:
            return _Missing(None, child)
        return Node(members[key], child)

    def items(self, low: int, high: int) -> list[Node]:
        """The elements of a list of ``low`` to ``high`` elements."""
        value = self._present()
        if not isinstance(value, list):
            raise self.fail(f"must be a list, not {_kind(value)}")
        if not low <= len(value) <= high:
            raise self.fail(f"must have {_span(low, high)} elements, not {len(value)}")
        return [Node(element, f"{self.path}[{i}]") for i, element in enumerate(value)]

    def members(self, high: int) -> Iterator[tuple[str, Node]]:
        """The members of an object that is used as a map of at most ``high`` entries."""
        members = self._object()
        if len(members) > high:
            raise self.fail(f"must have at most {high} members, not {len(members)}")
        for key in members:
            yield key, self.get(key)

    def text(self, low: int, high: int, *, newlines: bool = False) -> str:
        """A string of ``low`` to ``high`` code points without control or bidirectional formatting characters."""
        value = self._string()
        if not low <= len(value) <= high:
            raise self.fail(f"must have {_span(low, high)} characters, not {len(value)}")
        if (_UNPRINTABLE_BUT_NEWLINE if newlines else _UNPRINTABLE).search(value):
            raise self.fail("must not contain control or bidirectional formatting characters")
        return value

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        """A string that ``pattern`` matches in full; ``what`` names the grammar."""
        value = self._string()
        if not pattern.fullmatch(value):
            raise self.fail(f"{_quote(value)} is not {what}")
        return value

    def name(self, check: Callable[[str], str]) -> str:
        """A string that a function of `edge_runtime.bundle.names` accepts."""
        value = self._string()
        try:
            return check(value)
        except InvalidName as error:
            raise self.fail(str(error)) from error

    def choice(self, choices: Sequence[str]) -> str:
        value = self._string()
        if value not in choices:
            raise self.fail(f"{_quote(value)} is not one of {', '.join(choices)}")
        return value

    def integer(self, low: int, high: int) -> int:
        """A whole number, written without fraction or exponent, from ``low`` to ``high``."""
        value = self._present()
        if type(value) is not int:
            raise self.fail(f"must be a whole number, not {_kind(value)}")
        if not low <= value <= high:
            raise self.fail(f"must be from {low} to {high}, not {value}")
        return value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from ``low`` to ``high``, as a float."""
        value = self._present()
        if type(value) is not int and type(value) is not float:
            raise self.fail(f"must be a number, not {_kind(value)}")
        if not low <= value <= high:
            raise self.fail(f"must be from {low:g} to {high:g}, not {value!r}")
        return float(value)

    def positive(self, high: float = math.inf) -> float:
        """A finite number above 0 and up to ``high``, as a float."""
        value = self.number(0, high)
        if value == 0:
            raise self.fail("must be above 0")
        return value

    def boolean(self) -> bool:
        value = self._present()
        if type(value) is not bool:
            raise self.fail(f"must be true or false, not {_kind(value)}")
        return value

    def optional(self, read: Callable[[Node], T]) -> T | None:
        """None if the value is null or missing, else ``read(self)``."""
        return None if self.value is None else read(self)

    def _present(self) -> object:
        return self.value

    def _object(self) -> dict[str, object]:
        value = self._present()
        if not isinstance(value, dict):
            raise self.fail(f"must be an object, not {_kind(value)}")
        return value

    def _string(self) -> str:
        value = self._present()
        if not isinstance(value, str):
            raise self.fail(f"must be a string, not {_kind(value)}")
        return value


class _Missing(Node):
    """A member that is not there."""

    __slots__ = ()

    def _present(self) -> object:
        raise self.fail("is missing")


def parse(data: bytes, *, max_bytes: int, what: str, max_depth: int = MAX_DEPTH) -> Node:
    """Parse a document whose top level is an object. ``what`` names it in errors.

    Raises `ManifestError` for a document longer than ``max_bytes``, nested deeper than ``max_depth``, not UTF-8, not
    JSON, or with any of the ambiguities that this module's first lines list.
    """
    if len(data) > max_bytes:
        raise ManifestError(f"{what} has {len(data)} bytes; at most {max_bytes} are read")
    try:
        text = bytes(data).decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{what} is not UTF-8 (byte {error.start})") from error
    _check_depth(text, max_depth, what)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_NotANumber
        )
    except ValueError as error:
        raise ManifestError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{what} must be an object, not {_kind(value)}")
    _check_tree(value, "")
    return Node(value)


def canonical(value: object) -> bytes:
    """The one JSON form that our writers use: UTF-8, keys sorted by code point, no spaces, one newline at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def _check_depth(text: str, max_depth: int, what: str) -> None:
    """Before parsing, since the parser recurses and how deep it can go depends on the caller's stack."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        if bracket.group() in "[{":
            depth += 1
            if depth > max_depth:
                raise ManifestError(f"{what} is nested deeper than {max_depth} levels")
        else:
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            return _Repeated(key)
        members[key] = value
    return members


def _integer(text: str) -> object:
    # The length first: Python refuses to convert very long digit strings, and is slow before that.
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        return _NotANumber(text)
    return int(text)


def _float(text: str) -> object:
    value = float(text)
    return value if math.isfinite(value) else _NotANumber(text)


def _check_tree(value: object, path: str) -> None:
    """Refuse what the parser let through, everywhere, so that an ignored key cannot smuggle it either."""
    if isinstance(value, str):
        _check_string(value, path)
    elif isinstance(value, _NotANumber):
        raise ManifestError(
            f"{value.text} is not a number that this format allows (finite, whole ones up to {MAX_INTEGER})",
            key_path=path,
        )
    elif isinstance(value, _Repeated):
        raise ManifestError(f"the key {_quote(value.key)} appears twice", key_path=path)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            _check_tree(element, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_string(key, path)
            _check_tree(member, _join(path, key))


def _check_string(value: str, path: str) -> None:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ManifestError("a string holds half of a surrogate pair", key_path=path)


def _join(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{_quote(key)}]"
    return f"{path}.{key}" if path else key


def _quote(value: str) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a whole number" if isinstance(value, int) else "a number with a fraction or exponent"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
