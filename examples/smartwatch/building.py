"""From trained networks to bundles, with the converters' public calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import Dataset, Description, FeatureSpec, KerasSource, convert, pack, read_report
from edge_runtime.bundle import Hybrid, TensorSpec
from examples.smartwatch import models
from examples.smartwatch.data import AXES, EXERCISES, SUBJECTS, WINDOW, Windows
from examples.smartwatch.narrator import Narrator

if TYPE_CHECKING:
    import keras

    from converters import ConvertedArtifact, Packaged

MODEL = "exercise"
CLOUD_MODEL = "exercise-teacher"
DEFERRAL_SHARE = 0.2  # of the validation subject's windows go to the cloud; sets every artifact's threshold
FEATURES = tuple(
    FeatureSpec(name=f"{axis} mean", input="window", reduce="mean", index=i) for i, axis in enumerate(AXES)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The subjects' windows as the converters take them."""

    train: Dataset
    val: Dataset
    test: Dataset
    by_subject: dict[str, Any]  # masks over the test windows

    @classmethod
    def of(cls, windows: Windows) -> Splits:
        def part(name: Any) -> Dataset:
            w = windows.of(name)
            subjects = ", ".join(map(str, SUBJECTS[name]))
            return Dataset(name=f"subjects {subjects}", inputs={"window": w.x}, labels=w.y)

        test = windows.of("test")
        masks = {f"subject {s}": test.subject == s for s in SUBJECTS["test"]}
        masks |= {name: test.y == i for i, name in enumerate(EXERCISES)}
        return cls(train=part("train"), val=part("val"), test=part("test"), by_subject=masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A bundle, and what was measured of each artifact in it."""

    packed: Packaged
    artifacts: tuple[ConvertedArtifact, ...]


def build_release(
    student: keras.Model,
    splits: Splits,
    narrator: Narrator,
    out: Path,
    *,
    release: int,
    version: str,
    changes: str,
    seed: int,
    cloud_release: int,
    data_sha256: str,
    targets: tuple[str, ...],
) -> Built:
    """Convert to every target in fp32 and INT8, measure each artifact on the unseen subjects, pack the bundle."""
    source = KerasSource(student, name=MODEL)
    kinds = len(targets) * 2
    folder = out / f"artifacts-{version}"
    artifacts = convert(
        source,
        calibration=splits.train,
        evaluation=splits.test,
        confidence=splits.val,
        deferral_share=DEFERRAL_SHARE,
        targets=targets,
        precisions=("fp32", "int8"),
        out=folder,
        overwrite=True,
        progress=lambda text, done, total: narrator.progress(f"release {version}: {kinds} artifacts", done, total),
    )
    context = TensorSpec(name="context", dtype="float32", shape=("n", WINDOW, len(AXES)))
    packed = pack(
        read_report(folder),
        model=MODEL,
        release=release,
        labels=EXERCISES,
        description=Description(
            owner="Edgeship example",
            contact="SECURITY.md",
            version=version,
            predicts=f"which of 7 shoulder exercises the wearer of a smartwatch does. {changes}",
            dataset=f"seglearn watch_dataset.npy, sha256 {data_sha256}",
            in_graph="normalisation by the training subjects' mean and variance",
            caller="windows of 100 samples at 50 Hz, accelerometer in g and gyroscope in rad/s, axes "
            + ", ".join(AXES),
            personal_data=True,
            consent_purpose="research data set published for reuse (BSD-3-Clause)",
            seeds=(seed,),
            known_failures=(
                "a watch that is strapped on the other way round is misread; the drift watch looks for it",
            ),
            retraining="when the drift watch alarms",
            units={"window": "g and rad/s"},
        ),
        training=splits.train,
        evaluation=splits.test,
        created=datetime.now(UTC),
        out=out,
        features=FEATURES,
        hybrid=Hybrid(model=CLOUD_MODEL, releases=(cloud_release,), inputs=(context,)),
        segments=splits.by_subject,
        overwrite=True,
    )
    return Built(packed=packed, artifacts=tuple(artifacts))


def build_cloud_model(teacher: keras.Model, windows: Windows, rows: int, folder: Path) -> None:
    """The teacher with context as ``model.onnx``, checked against Keras on ``rows`` evenly spread contexts."""
    chosen = [i for i in np.linspace(0, len(windows) - 1, 4 * rows).astype(int) if len(windows.context(int(i))) == 8]
    contexts = np.stack([windows.context(int(i)) for i in chosen[:rows]])
    (artifact,) = convert(
        KerasSource(models.with_context(teacher), first_axis="n", name=CLOUD_MODEL),
        evaluation=Dataset(name="contexts of 8 windows", inputs={"context": contexts}),
        targets=("onnx",),
        precisions=("fp32",),
        out=folder / "converted",
        overwrite=True,
    )
    artifact.path.replace(folder / "model.onnx")
