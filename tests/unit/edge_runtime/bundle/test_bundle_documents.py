from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.bundle import (
    ManifestError,
    PolicyDocument,
    ReleaseDocument,
    UnsupportedFormat,
    read_policy,
    read_release,
    write_policy,
    write_release,
)
from tests.support import bundles


def refusal(read: Callable[[bytes], object], data: bytes, path: str, value: object) -> ManifestError:
    document = json.loads(data)
    bundles.put(document, path, value)
    with pytest.raises(ManifestError) as caught:
        read(json.dumps(document).encode())
    return caught.value


def test_release_json_is_read_back_as_it_was_written() -> None:
    document = bundles.release_document()
    assert read_release(write_release(document)) == document
    bare = ReleaseDocument(model="m", release=1, ceiling=())
    assert read_release(write_release(bare)) == bare


def test_policy_json_is_read_back_as_it_was_written() -> None:
    document = PolicyDocument(model="m", min_release=3, revoked=(4, 9))
    assert read_policy(write_policy(document)) == document


def test_the_written_forms_are_canonical() -> None:
    assert write_policy(PolicyDocument(model="m", revoked=(1, 2))) == (
        b'{"critical":[],"format":1,"min_release":1,"model":"m","revoked":[1,2]}\n'
    )
    assert write_release(ReleaseDocument(model="m", release=2, ceiling=((0, 5),))) == (
        b'{"audit_head":null,"ceiling":[{"age_s":0,"share":5}],"critical":[],"deltas":[],'
        b'"format":1,"model":"m","release":2}\n'
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("model", v) for v in ("", "A", None)),
        *(("release", v) for v in (0, True, 2.0, 1)),  # 1: the delta is from release 1
        ("ceiling", None),
        ("ceiling", [{"age_s": 0, "share": 1}] * 65),
        *(("ceiling[0].age_s", v) for v in (1, -1, 0.5, None)),
        *(("ceiling[1].age_s", v) for v in (0, 2**53)),
        *(("ceiling[1].share", v) for v in (999_999, 100_000_001, 0.1, None)),
        ("deltas", None),
        *(("deltas[0].from_release", v) for v in (0, 2, 3, None)),
        *(("deltas[0].file", v) for v in ("x.delta", "model-fp32.onnx.from-2.delta", "MODEL-fp32.onnx.from-1.delta")),
        *(("deltas[0].artifact", v) for v in ("other.onnx", "../x", None)),
        *(("deltas[0].bytes", v) for v in (0, 2**31 + 1)),
        *(("deltas[0].sha256", v) for v in ("x", None)),
        *(("audit_head", v) for v in ("", "0" * 63, 1)),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_a_release_json_outside_the_format_is_refused_at_its_key_path(path: str, value: object) -> None:
    error = refusal(read_release, write_release(bundles.release_document()), path, value)
    assert error.key_path.startswith(path.partition("[")[0]) or path == "release"


def test_two_deltas_of_one_name_are_refused() -> None:
    document = json.loads(write_release(bundles.release_document()))
    document["deltas"] *= 2
    with pytest.raises(ManifestError, match="twice"):
        read_release(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("model", v) for v in ("", "A", None)),
        *(("min_release", v) for v in (0, True, 1.0, None, 2**31)),
        *(("revoked", v) for v in (None, [0], [2, 1], [1, 1], [True], list(range(1, 4098)))),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_a_policy_json_outside_the_format_is_refused_at_its_key_path(path: str, value: object) -> None:
    assert refusal(read_policy, write_policy(PolicyDocument(model="m")), path, value).key_path.startswith(path)


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (read_release, write_release(bundles.release_document())),
        (read_policy, write_policy(PolicyDocument(model="m"))),
    ],
)
def test_newer_formats_and_unknown_critical_keys_are_refused_and_unknown_keys_ignored(
    read: Callable[[bytes], object], data: bytes
) -> None:
    document: dict[str, Any] = json.loads(data)
    assert read(json.dumps({**document, "later": {"x": 1}}).encode()) == read(data)
    for change, key_path in (({"format": 2}, "format"), ({"critical": ["later"]}, "critical[0]")):
        with pytest.raises(UnsupportedFormat) as caught:
            read(json.dumps({**document, **change}).encode())
        assert caught.value.key_path == key_path
    with pytest.raises(ManifestError, match="at most 65536"):
        read(json.dumps({**document, "later": "x" * 65_536}).encode())


@pytest.mark.parametrize("name", ["ceiling.share", "deltas.from_release", "audit_head"])
def test_critical_keys_of_release_json_may_name_what_the_reader_knows(name: str) -> None:
    document = bundles.release_document(critical=(name,))
    assert read_release(write_release(document)) == document


def test_a_writer_cannot_write_what_a_reader_refuses() -> None:
    for wrong in (
        replace(bundles.release_document(), ceiling=((5, 1),)),
        replace(bundles.release_document(), ceiling=((0, 1.5),)),
        replace(bundles.release_document(), format=2),
        replace(bundles.release_document(), deltas=[]),
    ):
        with pytest.raises(ManifestError):
            write_release(wrong)  # type: ignore[arg-type]
    with pytest.raises(ManifestError):
        write_policy(PolicyDocument(model="m", revoked=(2, 1)))


def test_a_policy_says_which_releases_may_run() -> None:
    policy = PolicyDocument(model="m", min_release=3, revoked=(5,))
    assert [policy.allows(release) for release in (2, 3, 4, 5, 6)] == [False, True, True, False, True]
