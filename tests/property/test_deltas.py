"""What holds for every delta: it makes the new file again, in little memory; and damaged, it makes an error."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.update.delta import DeltaDamaged, apply
from edge_runtime.update.delta import words as layout
from edge_runtime.update.delta.format import HEADER_BYTES, table_bytes
from model_server.releases.delta import make_delta

FILES = st.binary(max_size=3000)


def applied(old: bytes, patch: bytes, length: int, digest: str | None = None) -> bytes:
    made = bytearray()
    apply(
        io.BytesIO(old),
        io.BytesIO(patch),
        old_sha256=digest or hashlib.sha256(old).hexdigest(),
        old_length=len(old),
        new_length=length,
        write=made.extend,
    )
    return bytes(made)


def weights(seed: int, count: int, dtype: str = "<f4") -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 0.05, count)
    return (values * 800).astype(np.int8) if dtype == "i1" else values.astype(dtype)


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A file, and one made of its pieces: moved, changed, repeated, with others between them."""
    old = draw(FILES)
    pieces = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["keep", "change", "add"]))
        start = draw(st.integers(0, len(old)))
        piece = bytearray(old[start : draw(st.integers(start, len(old)))])
        if kind == "change" and piece:
            for place in draw(st.lists(st.integers(0, len(piece) - 1), max_size=20)):
                piece[place] ^= draw(st.integers(1, 255))
        pieces.append(draw(st.binary(max_size=100)) if kind == "add" else bytes(piece))
    return old, b"".join(pieces)


@given(edited())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_is_made_from_any_other(files: tuple[bytes, bytes]) -> None:
    old, new = files
    assert applied(old, make_delta(old, new), len(new)) == new


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "i1"])
@pytest.mark.parametrize("phase", [0, 1, 3])
@pytest.mark.parametrize("share", [1.0, 0.01])
def test_weights_that_moved_are_made_again_wherever_they_lie(dtype: str, phase: int, share: float) -> None:
    before = weights(1, 100_000, dtype)
    moved = (before.astype("f8") * (1 + weights(2, len(before)) * 0.2)).astype(dtype)
    after = np.where(np.random.default_rng(3).random(len(before)) < share, moved, before)
    old = b"x" * phase + before.tobytes() + b"the end of a file"
    new = b"x" * phase + after.tobytes() + b"another end of a file"
    patch = make_delta(old, new)
    assert applied(old, patch, len(new)) == new
    assert len(patch) < 0.72 * len(new), "less than any compressor makes of the whole file"


def test_inserted_bytes_cost_little_though_every_weight_moved() -> None:
    before, changed = weights(1, 60_000), weights(2, 60_000) * 0.2 + 1
    halves = np.split(before, 2), np.split((before * changed).astype("<f4"), 2)
    old = halves[0][0].tobytes() + b"a name between two tensors, 1" + halves[0][1].tobytes()
    same = halves[1][0].tobytes() + b"a name between two tensors, 1" + halves[1][1].tobytes()
    longer = halves[1][0].tobytes() + b"a name between two tensors, 1, and more" + halves[1][1].tobytes()
    assert applied(old, make_delta(old, longer), len(longer)) == longer
    assert len(make_delta(old, longer)) < len(make_delta(old, same)) + 500


@given(st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_delta_is_an_error_or_other_bytes_and_never_more_of_them(data: st.DataObject) -> None:
    old, new, patch = _example()
    damaged = bytearray(patch)
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            # Most of the file is compressed noise; the header, the table and the records are what is worth attacking.
            place = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, min(400, len(damaged) - 1)))
            damaged[place] = data.draw(st.integers(0, 255))
    else:
        damaged = damaged[: data.draw(st.integers(0, len(damaged) - 1))]
    made = bytearray()
    try:
        apply(
            io.BytesIO(old),
            io.BytesIO(bytes(damaged)),
            old_sha256=hashlib.sha256(old).hexdigest(),
            old_length=len(old),
            new_length=len(new),
            write=made.extend,
        )
    except DeltaDamaged:
        assert len(made) <= len(new)
    else:
        assert len(made) == len(new)


def test_a_delta_for_other_files_is_refused_before_anything_is_written() -> None:
    old, new, patch = _example()
    with pytest.raises(DeltaDamaged, match="another file"):
        applied(old, patch, len(new), digest="0" * 64)
    with pytest.raises(DeltaDamaged, match="were signed"):
        applied(old, patch, len(new) + 1)
    with pytest.raises(DeltaDamaged, match="length is not that"):
        applied(old, patch + b"x", len(new))
    with pytest.raises(DeltaDamaged, match="table"):
        applied(old, patch[: HEADER_BYTES + table_bytes(1)], len(new))


@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 1000])
def test_gaps_of_every_length_are_read_back(count: int) -> None:
    places = np.array([count, count + 1, 2 * count + 2])
    assert layout.from_gaps(layout.to_gaps(places), 2 * count + 3).tolist() == places.tolist()
    with pytest.raises(DeltaDamaged, match="beyond"):
        layout.from_gaps(layout.to_gaps(places), 2 * count + 2)
    assert layout.to_gaps(places[:0]) == b""


def test_differences_wrap_and_come_back() -> None:
    for width in (1, 2, 4):
        one = layout.words(random.Random(width).randbytes(4000), width)
        other = layout.words(random.Random(-width).randbytes(4000), width)
        assert np.array_equal(layout.moved(one, layout.differences(one, other)), other)


def test_applying_takes_below_8_mib_whatever_the_size(tmp_path: Path) -> None:
    before = weights(1, 2_500_000)
    before.tofile(tmp_path / "old")
    after = (before * (1 + weights(2, len(before)) * 0.2)).astype("<f4")
    after.tofile(tmp_path / "new")
    (tmp_path / "patch").write_bytes(make_delta(before.tobytes(), after.tobytes()))
    program = """
import hashlib, resource, sys
from pathlib import Path
import numpy, lzma, zstandard
from edge_runtime.update.delta import apply, applying, streams
folder, length = Path(sys.argv[1]), int(sys.argv[2])
digest = hashlib.sha256()
with open(folder / "old", "rb") as old:
    known = hashlib.file_digest(old, "sha256").hexdigest()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(folder / "patch", "rb") as patch:
        apply(old, patch, old_sha256=known, old_length=length, new_length=length, write=digest.update)
print(digest.hexdigest(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(after.nbytes)], capture_output=True, text=True, check=True
    )
    digest, grown_kib = done.stdout.split()
    assert digest == hashlib.sha256(after.tobytes()).hexdigest()
    assert int(grown_kib) < 8 * 1024


def _example() -> tuple[bytes, bytes, bytes]:
    before = weights(1, 4000)
    after = before.copy()
    after[:2000] *= 1.01
    after[3000] = 1
    old = b"head" + before.tobytes() + b"some text that stays as it is" * 20
    new = b"other head" + after.tobytes() + b"some text that stays as it is" * 20 + b"and more"
    return old, new, make_delta(old, new)
