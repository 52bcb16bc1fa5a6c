"""A session runs exactly the verified file, on exactly the manifest's inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.errors import DigestMismatch, ModelRejected, NonFiniteInput, WrongDtype, WrongInputs, WrongShape
from edge_runtime.session import Session, version_at_least
from tests.support import tiny


@pytest.fixture(params=["onnx", "tflite"])
def session(request: pytest.FixtureRequest) -> Session:
    release = tiny.release(tflite_data=tiny.tflite_bytes())
    artifact = next(a for a in release.manifest.artifacts if a.target == request.param)
    return Session.load(release.manifest, artifact, release.files[artifact.file])


def test_whole_arrays_run_in_both_engines(session: Session) -> None:
    windows = tiny.windows(7)
    np.testing.assert_allclose(session.run({"window": windows})["logits"], tiny.expected(windows), atol=1e-5)


def test_a_file_that_is_not_the_manifests_never_reaches_the_engine() -> None:
    release = tiny.release()
    data = bytearray(release.files[release.artifact.file])
    data[-1] ^= 1
    with pytest.raises(DigestMismatch):
        Session.load(release.manifest, release.artifact, bytes(data))


def test_an_engine_older_than_the_artifact_needs_is_rejected() -> None:
    release = tiny.release()
    artifact = replace(release.artifact, minimum_engine_version="999.0")
    with pytest.raises(ModelRejected, match=r"999\.0"):
        Session.load(release.manifest, artifact, release.files[artifact.file])


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({}, WrongInputs),
        ({"window": tiny.windows(1), "more": tiny.windows(1)}, WrongInputs),
        ({"window": tiny.windows(1)[0]}, WrongShape),
        ({"window": tiny.windows(1).astype(np.float64)}, WrongDtype),
        ({"window": tiny.windows(1).tolist()}, WrongDtype),
        ({"window": np.full((1, 20, 3), np.nan, np.float32)}, NonFiniteInput),
    ],
)
def test_wrong_inputs_are_refused_by_name(session: Session, inputs: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        session.run(inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("1.32.0", "1.9", True),
        ("1.9", "1.32.0", False),
        ("2.3.0", "", True),
        ("2.3", "2.3.0", True),
        ("2.3.0rc1", "2.3.1", False),
        ("2.4.0-dev", "2.3.9", True),
    ],
)
def test_versions_compare_by_their_numbers(version: str, minimum: str, enough: bool) -> None:
    assert version_at_least(version, minimum) is enough
