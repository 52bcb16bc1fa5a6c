"""Golden examples catch a wrong answer, and a golden file from a stranger cannot hurt the reader."""

from __future__ import annotations

import contextlib
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import golden
from edge_runtime.errors import ArchiveError, BundleTooLarge, InputError
from edge_runtime.session import Session
from tests.support import tiny


def session_of(release: tiny.TinyRelease) -> Session:
    return Session.load(release.manifest, release.artifact, release.files[release.artifact.file])


def examples_of(release: tiny.TinyRelease) -> golden.GoldenExamples:
    return golden.read(release.files[release.artifact.golden.file])


def test_right_answers_pass() -> None:
    release = tiny.release(golden_count=5)
    result = golden.check(session_of(release), examples_of(release))
    assert result.passed
    assert (result.examples, result.wrong_decisions) == (5, 0)


def test_a_wrong_decision_fails_however_close() -> None:
    windows = tiny.windows(4, 7)
    outputs = tiny.expected(windows)
    outputs[2] = outputs[2][::-1]
    result = golden.check(session_of(tiny.release()), examples_of(tiny.release(golden_outputs=outputs)))
    assert not result.passed
    assert result.wrong_decisions == 1


def test_a_difference_above_the_tolerance_fails_with_equal_decisions() -> None:
    outputs = tiny.expected(tiny.windows(4, 7)) + np.float32(0.01)
    result = golden.check(session_of(tiny.release()), examples_of(tiny.release(golden_outputs=outputs)))
    assert not result.passed
    assert result.wrong_decisions == 0
    assert result.max_difference == pytest.approx(0.01, rel=0.01)


def test_no_manifest_can_ask_for_a_tolerance_above_the_readers_cap() -> None:
    release = tiny.release()
    outputs = tiny.expected(tiny.windows(4, 7)) + np.float32(5)
    wide = replace(release.artifact, golden=replace(release.artifact.golden, tolerance=1e9))
    session = Session.load(release.manifest, wide, release.files[wide.file])
    assert not golden.check(session, examples_of(tiny.release(golden_outputs=outputs))).passed


def test_answers_that_are_not_numbers_fail() -> None:
    release = tiny.release(onnx_data=tiny.nan_onnx_bytes())
    assert not golden.check(session_of(release), examples_of(release)).passed


def test_golden_inputs_of_another_model_are_refused() -> None:
    release = tiny.release()
    other = golden.read(golden.write({"sound": tiny.windows(1)}, {"logits": tiny.expected(tiny.windows(1))}))
    with pytest.raises(InputError):
        golden.check(session_of(release), other)


def test_the_same_arrays_give_the_same_bytes_and_come_back() -> None:
    windows, outputs = tiny.windows(3), tiny.expected(tiny.windows(3))
    data = golden.write({"window": windows}, {"logits": outputs})
    assert data == golden.write({"window": windows}, {"logits": outputs})
    read = golden.read(data)
    np.testing.assert_array_equal(read.inputs["window"], windows)
    np.testing.assert_array_equal(read.outputs["logits"], outputs)
    np.testing.assert_array_equal(read.decision, outputs.argmax(axis=1))


def archive(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name.replace("__", ":") + ".npy", data)
    return out.getvalue()


def npy(array: np.ndarray, **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


WINDOW, LOGITS, DECISION = npy(tiny.windows(2)), npy(tiny.expected(tiny.windows(2))), npy(np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 not a zip",
        archive(input__window=WINDOW, output__logits=LOGITS),
        archive(input__window=WINDOW, decision=DECISION),
        archive(input__window=WINDOW, output__logits=LOGITS, decision=npy(np.zeros(3, np.int64))),
        archive(input__window=WINDOW, output__logits=LOGITS, decision=npy(np.zeros(2, np.float32))),
        archive(input__window=WINDOW[:-1], output__logits=LOGITS, decision=DECISION),
        archive(input__window=b"\x93NUMPY\x01\x00", output__logits=LOGITS, decision=DECISION),
        archive(input__window=npy(np.array([{}, {}])), output__logits=LOGITS, decision=DECISION),
        archive(input__window=npy(np.array(["a", "b"])), output__logits=LOGITS, decision=DECISION),
    ],
)
def test_a_file_that_is_not_a_golden_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        golden.read(data)


def test_a_header_that_asks_for_terabytes_allocates_nothing() -> None:
    header = npy(np.zeros(2, np.float32)).replace(b"'shape': (2,)", b"'shape': (2000000000000,)".ljust(13))
    huge = header.replace(b"(2000000000000,), }            ", b"(2000000000000,), }")
    with pytest.raises(ArchiveError):
        golden.read(archive(input__window=huge, output__logits=LOGITS, decision=DECISION))


def test_a_zip_bomb_is_refused_before_it_unfolds() -> None:
    with pytest.raises(BundleTooLarge):
        golden.read(archive(input__window=bytes(golden.MAX_BYTES + 1)))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': [[[[((((",
        "-" * 9000 + "1",
        "{1: 2, 'descr': 3, 'shape': 4}",
        "{'descr': " + "(" * 150 + ")" * 150 + ", 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_a_header_that_is_hostile_python_is_refused_by_name(header: str) -> None:
    data = header.encode().ljust(117) + b"\n"
    hostile = b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data
    with pytest.raises(ArchiveError):
        golden.read(archive(input__window=hostile, output__logits=LOGITS, decision=DECISION))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_reads_or_is_refused_by_name(data: st.DataObject) -> None:
    good = bytearray(tiny.release().files["tiny-fp32.onnx.golden.npz"])
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ArchiveError):
        golden.read(bytes(good))
