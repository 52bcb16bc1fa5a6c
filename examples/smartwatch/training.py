"""Train a teacher and distil a student, once for each seed. Trained models are kept and used again by a second run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.smartwatch import models
from examples.smartwatch.data import Windows

if TYPE_CHECKING:
    import keras

SEEDS = (11, 23, 37)  # fixed before the first run; the first seed's models ship
TEACHER_EPOCHS = 12
STUDENT_EPOCHS = 25
IMPROVE_EPOCHS = 8
TEMPERATURE = 2.0
ALPHA = 0.5  # weight of the teacher's soft labels; the rest is the true label

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One seed's networks. ``teacher`` takes one window; `models.with_context` makes the cloud model of it."""

    seed: int
    teacher: keras.Model
    student: keras.Model
    reused: bool


def train(seed: int, train: Windows, cache: Path, say: Say) -> Trained:
    """The seed's teacher and student, from ``cache`` when the same code made them from the same data."""
    import keras

    folder = cache / f"seed-{seed}-{_recipe(train)}"
    if (folder / "done").exists():
        say(f"seed {seed}: teacher and student of an earlier run")
        teacher = keras.models.load_model(folder / "teacher.keras", compile=False)
        student = keras.models.load_model(folder / "student.keras", compile=False)
        return Trained(seed=seed, teacher=teacher, student=student, reused=True)
    say(f"seed {seed}: training the teacher ({TEACHER_EPOCHS} epochs)")
    teacher = _train_teacher(seed, train)
    say(f"seed {seed}: distilling the student ({STUDENT_EPOCHS} epochs)")
    keras.utils.set_random_seed(seed)
    student = _distil(seed, teacher, models.student(train.x), train, epochs=STUDENT_EPOCHS)
    folder.mkdir(parents=True, exist_ok=True)
    teacher.save(folder / "teacher.keras")
    student.save(folder / "student.keras")
    (folder / "done").touch()
    return Trained(seed=seed, teacher=teacher, student=student, reused=False)


def improve(trained: Trained, train: Windows, cache: Path, say: Say) -> keras.Model:
    """Release 2: the shipped student, distilled for 8 more epochs on windows whose gain and timing vary.

    Watches differ in sensor gain, and an exercise does not start at a window's edge.
    """
    import keras

    file = cache / f"improved-{trained.seed}-{_recipe(train)}.keras"
    if file.exists():
        say("release 2: the improved student of an earlier run")
        return keras.models.load_model(file, compile=False)
    say("release 2: distilling 8 more epochs on windows with varied gain and timing")
    rng = np.random.default_rng(trained.seed)
    gain = rng.uniform(0.9, 1.1, size=(len(train), 1, 6)).astype(np.float32)
    shift = rng.integers(-10, 11, size=len(train))
    varied = np.stack([np.roll(window, s, axis=0) for window, s in zip(train.x * gain, shift, strict=True)])
    both = Windows(
        x=np.concatenate([train.x, varied]),
        y=np.tile(train.y, 2),
        subject=np.tile(train.subject, 2),
        recording=np.tile(train.recording, 2),
    )
    student = models.student(train.x)
    student.set_weights(trained.student.get_weights())
    student = _distil(trained.seed, trained.teacher, student, both, epochs=IMPROVE_EPOCHS)
    student.save(file)
    return student


def _train_teacher(seed: int, train: Windows) -> keras.Model:
    import keras

    keras.utils.set_random_seed(seed)
    batch = 64
    teacher = models.teacher(train.x)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, TEACHER_EPOCHS * -(-len(train) // batch))
    teacher.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    teacher.fit(train.x, train.y, batch_size=batch, epochs=TEACHER_EPOCHS, verbose=0)
    return teacher


def _distil(seed: int, teacher: keras.Model, student: keras.Model, train: Windows, *, epochs: int) -> keras.Model:
    from converters.distill import distill

    distill(
        teacher,
        student,
        train.x,
        train.y,
        temperature=TEMPERATURE,
        alpha=ALPHA,
        epochs=epochs,
        batch_size=128,
        learning_rate=4e-3,
        seed=seed,
    )
    return student


def _recipe(train: Windows) -> str:
    """Changes when the data, the networks or this file change, so that an old model is never taken for a new one."""
    h = hashlib.sha256(train.x.tobytes())
    for module in (models.__file__, __file__):
        h.update(Path(module).read_bytes())
    h.update(json.dumps([TEACHER_EPOCHS, STUDENT_EPOCHS, IMPROVE_EPOCHS, TEMPERATURE, ALPHA]).encode())
    return h.hexdigest()[:12]
