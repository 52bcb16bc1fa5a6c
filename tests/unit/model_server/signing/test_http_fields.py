"""Request fields as RFC 9110 has them."""

from __future__ import annotations

import pytest

from model_server.signing.http_fields import Unsatisfiable, accepts_gzip, byte_range, field, matches

ETAGS = (b'"one"', b'"one-gzip"')


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (b'"one"', True),
        (b'"one-gzip"', True),
        (b'W/"one"', True),
        (b'"two", W/"one"', True),
        (b'"two","three"', False),
        (b"*", True),
        (b"one", False),
        (b"", False),
    ],
)
def test_an_etag_is_compared_weakly_with_a_list(value: bytes, same: bool) -> None:
    assert matches(value, ETAGS) is same


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (b"gzip", True),
        (b"deflate, GZIP;q=0.5", True),
        (b"br, x-gzip", True),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip; q=0.000", False),
        (b"gzip;q=0, *", False),
        (b"*;q=0, gzip", True),
        (b"br, zstd", False),
        (b"", False),
    ],
)
def test_gzip_is_sent_to_who_accepts_it(value: bytes, accepted: bool) -> None:
    assert accepts_gzip(value) is accepted


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"bytes=0-9", (0, 10)),
        (b"bytes=90-", (90, 100)),
        (b"bytes=90-500", (90, 100)),
        (b"bytes=-10", (90, 100)),
        (b"bytes=-500", (0, 100)),
        (b"Bytes = 5-5 ", (5, 6)),
        (b"bytes=9-5", None),
        (b"bytes=0-1, 4-5", None),
        (b"bytes=-", None),
        (b"bytes=a-b", None),
        (b"bytes=+1-2", None),
        (b"bytes=" + b"1" * 5000 + b"-", None),
        (b"items=0-9", None),
        (b"0-9", None),
    ],
)
def test_one_range_is_a_part_and_what_is_not_understood_is_ignored(value: bytes, part: tuple[int, int] | None) -> None:
    assert byte_range(value, 100) == part


@pytest.mark.parametrize(("value", "size"), [(b"bytes=100-", 100), (b"bytes=-0", 100), (b"bytes=0-", 0)])
def test_a_range_outside_the_file_is_refused(value: bytes, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        byte_range(value, size)


def test_a_field_that_comes_twice_is_one_list() -> None:
    headers = [(b"if-none-match", b'"a"'), (b"host", b"x"), (b"if-none-match", b'"b"')]
    assert field(headers, b"if-none-match") == b'"a", "b"'
    assert field(headers, b"range") is None
