"""From trained networks to bundles, with the converters' public calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import ConfidenceRule, Dataset, Description, FeatureSpec, KerasSource, Request, run
from converters.engines import open_engine
from converters.errors import CheckFailed
from converters.parity import refuse_wrong_float
from converters.routes import make_float
from edge_runtime.bundle import Hybrid, TensorSpec
from examples.smartwatch import models
from examples.smartwatch.data import AXES, EXERCISES, SUBJECTS, WINDOW, Windows
from examples.smartwatch.narrator import Narrator

if TYPE_CHECKING:
    import keras

    from converters.bundling import Bundled
    from converters.report import Row

MODEL = "exercise"
CLOUD_MODEL = "exercise-teacher"
MAX_ACCURACY_DROP = 0.02  # 1,002 windows of two people scatter; the story is not about the gate
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

    @classmethod
    def of(cls, windows: Windows) -> Splits:
        def part(name: Any) -> Dataset:
            w = windows.of(name)
            subjects = ", ".join(map(str, SUBJECTS[name]))
            return Dataset(name=f"subjects {subjects}", inputs={"window": w.x}, labels=w.y, groups=w.subject)

        return cls(train=part("train"), val=part("val"), test=part("test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A bundle, and what was measured of each artifact in it."""

    packed: Bundled
    artifacts: tuple[Row, ...]


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
    context = TensorSpec(name="context", dtype="float32", shape=("n", WINDOW, len(AXES)))
    outcome = run(
        Request(
            source=KerasSource(student, name=MODEL),
            name=MODEL,
            release=release,
            out=out / f"release-{release}",
            calibration=splits.train,
            confidence=splits.val,
            evaluation=splits.test,
            targets=targets,
            precisions=("fp32", "int8"),
            max_accuracy_drop=MAX_ACCURACY_DROP,
            fallback=False,
            rule=ConfidenceRule(deferral_share=DEFERRAL_SHARE),
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
            features=FEATURES,
            hybrid=Hybrid(model=CLOUD_MODEL, releases=(cloud_release,), inputs=(context,)),
            peak_memory=False,
            overwrite=True,
        ),
        say=lambda text, done, total: narrator.progress(f"release {version}", done, total),
    )
    missing = [f"{row.kind}: {row.reason}" for row in outcome.report.artifacts if row.status != "ok"]
    if outcome.bundle is None or missing:
        raise CheckFailed(f"release {version} is not whole: {'; '.join(missing)}")
    return Built(packed=outcome.bundle, artifacts=outcome.report.artifacts)


def build_cloud_model(teacher: keras.Model, windows: Windows, count: int, folder: Path) -> None:
    """The teacher with context as ``model.onnx``, checked against Keras on ``count`` evenly spread contexts."""
    spread = np.linspace(0, len(windows) - 1, 4 * count).astype(int)
    chosen = [i for i in spread if len(windows.context(int(i))) == 8]
    contexts = np.stack([windows.context(int(i)) for i in chosen[:count]])
    source = KerasSource(models.with_context(teacher), first_axis="n", name=CLOUD_MODEL)
    made = make_float(source, "onnx", lambda text, done, total: None)
    rows = {"context": contexts}
    answers = open_engine("onnx", made.data, source.inputs, source.outputs).run(rows)
    refuse_wrong_float("the cloud model", source.predict(rows), answers)
    (folder / "model.onnx").write_bytes(made.data)
