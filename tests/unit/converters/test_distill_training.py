from __future__ import annotations

from typing import Any

import numpy as np

from converters.distilling.training import Lesson, Settings, Trainer, _softened, _squared, answers_of

RNG = np.random.default_rng(3)
ANSWERS, GIVEN = RNG.normal(0, 3, (4, 3)).astype(np.float32), RNG.normal(0, 3, (4, 3)).astype(np.float32)
INPUTS = {"row": RNG.normal(0, 1, (4, 5)).astype(np.float32)}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def test_the_loss_of_a_row_mixes_label_and_answer_and_without_a_label_it_is_the_answer_alone(keras: Any) -> None:
    lesson = Lesson(inputs=INPUTS, answers=ANSWERS, labels=np.array([2, -1, 0, -1]))
    found = np.asarray(_softened(3, 4.0)(lesson.packed(), GIVEN, 0.3, 1.0))
    soft = -16 * (softmax(ANSWERS / 4) * np.log(softmax(GIVEN / 4))).sum(axis=1)
    hard = -np.log(softmax(GIVEN))
    np.testing.assert_allclose(
        found, [0.7 * soft[0] + 0.3 * hard[0, 2], soft[1], 0.7 * soft[2] + 0.3 * hard[2, 0], soft[3]], rtol=1e-5
    )


def test_with_all_weight_on_the_labels_the_teacher_does_not_count(keras: Any) -> None:
    lesson = Lesson(inputs=INPUTS, answers=ANSWERS, labels=np.array([2, 1, 0, 1]))
    found = np.asarray(_softened(3, 4.0)(lesson.packed(), GIVEN, 1.0, 1.0))
    np.testing.assert_allclose(found, -np.log(softmax(GIVEN))[np.arange(4), [2, 1, 0, 1]], rtol=1e-5)


def test_a_regression_loses_squared_errors_in_units_of_the_answers_deviation(keras: Any) -> None:
    targets = np.full((4, 3), np.nan)
    targets[0] = [1.0, 2.0, 3.0]
    lesson = Lesson(inputs=INPUTS, answers=ANSWERS, targets=targets, regression=True)
    found = np.asarray(_squared(3)(lesson.packed(), GIVEN, 0.25, lesson.scale()))
    scale = ANSWERS.std(axis=0)
    soft = (((GIVEN - ANSWERS) / scale) ** 2).mean(axis=1)
    hard = (((GIVEN[0] - targets[0]) / scale) ** 2).mean()
    np.testing.assert_allclose(found, [0.75 * soft[0] + 0.25 * hard, *soft[1:]], rtol=1e-5)


def test_several_inputs_are_passed_by_name_and_the_later_of_equal_epochs_is_kept(keras: Any) -> None:
    left, right = keras.Input((5,), name="left"), keras.Input((2,), name="right")
    keras.utils.set_random_seed(1)
    model = keras.Model([left, right], keras.layers.Dense(3)(keras.layers.Concatenate()([left, right])))
    inputs = {"right": RNG.normal(0, 1, (4, 2)).astype(np.float32), "left": INPUTS["row"]}
    before = answers_of(model, inputs)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(
        before, np.concatenate([inputs["left"], inputs["right"]], axis=1) @ kernel + bias, rtol=1e-4
    )
    trainer = Trainer(model, Settings(epochs=3, batch_size=3), rows=4, outputs=3)
    trained = trainer.train(Lesson(inputs=inputs, answers=ANSWERS), alpha=0.0, seed=1, validate=lambda: 0.5)
    assert trained.best_epoch == 3
    assert trained.epochs[-1].loss < trained.epochs[0].loss
    assert not np.allclose(answers_of(model, inputs), before)


def test_a_trainer_starts_again_from_another_models_variables_and_an_empty_optimizer(keras: Any) -> None:
    def build(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        row = keras.Input((5,))
        h = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(6)(row)))
        return keras.Model(row, keras.layers.Dense(3)(h))

    lesson, settings = Lesson(inputs=INPUTS, answers=ANSWERS), Settings(epochs=2, batch_size=2)
    trainer = Trainer(build(7), settings, rows=4, outputs=3)
    found = []
    for seed in (1, 2, 1):
        trained = trainer.train(lesson, alpha=0.0, seed=seed, start=build(seed))
        found.append((trained.epochs[-1].loss, np.concatenate([w.ravel() for w in trainer.model.get_weights()])))
    assert found[0][0] == found[2][0]
    np.testing.assert_array_equal(found[0][1], found[2][1])
    assert not np.array_equal(found[0][1], found[1][1])
    alone = Trainer(build(1), settings, rows=4, outputs=3)
    alone.train(lesson, alpha=0.0, seed=1)
    np.testing.assert_allclose(np.concatenate([w.ravel() for w in alone.model.get_weights()]), found[0][1], rtol=1e-5)
