from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import CoreMLReference
from converters.errors import InvalidRequest, QuantizationRefused, TooLittleData
from converters.quantize.coreml import CoreMLQuantizer
from converters.quantize.coreml_rewrite import pair_parameters, weight_codes
from converters.quantize.recipes import load_recipe
from converters.targets.coreml import pack_program
from tests.unit.converters.mil.programs import build

RNG = np.random.default_rng(0)
# Channels far apart in scale, as raw features are: what normalization inside the model is for.
SCALE = np.array([1.0, 3000.0, 0.02], np.float32).reshape(1, 3, 1, 1)
ROWS = (RNG.normal(size=(96, 1, 3, 12, 12)) * SCALE + 2 * SCALE).astype(np.float32)
CALIBRATION, HELD_OUT = {"x": ROWS[:64]}, {"x": ROWS[64:]}


def normal(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


WEIGHTS = {"first": normal(16, 3, 3, 3), "depthwise": normal(16, 1, 3, 3), "point": normal(24, 16, 1, 1)}
MATRIX, LAST = normal(24, 8), normal(8, 8)
RECURRENT = [normal(32, 8), normal(32, 8)]


def network(mb: Any, x: Any) -> Any:
    """Normalization, three convolutions with activations, a product with a constant, a `linear`, and logits ``y``."""
    h = mb.real_div(x=mb.sub(x=x, y=2 * SCALE), y=SCALE)
    h = mb.relu6(x=mb.conv(x=h, weight=WEIGHTS["first"], strides=[2, 2], pad_type="same", name="first"))
    h = mb.clip(
        x=mb.conv(x=h, weight=WEIGHTS["depthwise"], groups=16, pad_type="same", name="depthwise"), alpha=0.0, beta=6.0
    )
    h = mb.relu(x=mb.conv(x=h, weight=WEIGHTS["point"], pad_type="valid", name="point"))
    h = mb.reduce_mean(x=h, axes=[2, 3], keep_dims=False)
    h = mb.gelu(x=mb.matmul(x=h, y=MATRIX, name="product"), mode="EXACT")
    return mb.linear(x=h, weight=LAST, name="y")


def cell(mb: Any, x: Any) -> Any:
    zeros = np.zeros((1, 8), np.float32)
    settings = {"initial_h": zeros, "initial_c": zeros, "weight_ih": RECURRENT[0], "weight_hh": RECURRENT[1]}
    sequence, _, _ = mb.lstm(x=x, **settings)
    return mb.identity(x=sequence, name="y")


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).mean() / np.square(expected - actual).mean()))


@pytest.fixture(scope="module")
def package() -> bytes:
    return pack_program(build(network, (1, 3, 12, 12), target="iOS16"))


@pytest.fixture(scope="module")
def quantizer(package: bytes) -> CoreMLQuantizer:
    return CoreMLQuantizer(package, CALIBRATION)


@pytest.fixture(scope="module")
def expected(package: bytes) -> np.ndarray:
    return CoreMLReference(package).run(HELD_OUT)["y"]


def test_units_are_weighted_operators_with_the_activation_behind_them(quantizer: CoreMLQuantizer) -> None:
    assert [(unit.operators, unit.weights) for unit in quantizer.units] == [
        (("conv", "relu6"), 432), (("conv", "clip"), 144), (("conv", "relu"), 384), (("linear", "gelu"), 192),
        (("linear",), 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "least", "share", "version"),
    [
        ("float16", 50, 0.0, 7),
        ("weights_wi8c_af32", 35, 1.0, 7),
        ("static_wi8c_ai8", 28, 1.0, 8),
        ("static_wi8c_ai8_mse", 28, 1.0, 8),
    ],
)
def test_each_precision_stays_close_to_float_and_gives_the_same_bytes_again(
    quantizer: CoreMLQuantizer, expected: np.ndarray, name: str, least: float, share: float, version: int
) -> None:
    data = quantizer.quantize(load_recipe(name))
    assert data == quantizer.quantize(load_recipe(name))
    reference = CoreMLReference(data)
    assert decibels(expected, reference.run(HELD_OUT)["y"]) > least
    assert reference.specification_version == version
    assert quantizer.inspect(data).share == share
    assert [var.shape for var in reference.function.outputs] == [(1, 8)]


def test_normalization_of_wide_inputs_stays_in_float32_and_its_constants_as_they_are(
    quantizer: CoreMLQuantizer,
) -> None:
    from coremltools.converters.mil.mil import types

    for name in ("float16", "static_wi8c_ai8"):
        reference = CoreMLReference(quantizer.quantize(load_recipe(name)))
        kinds = {operation.op_type: operation.outputs[0].dtype for operation in reference.operations()}
        assert kinds["sub"] == types.fp32, "3000 ± 3000 would lose its digits"
        assert kinds["conv"] == kinds["relu"] == types.fp16
        (subtracted,) = [each for each in reference.operations() if each.op_type == "sub"]
        np.testing.assert_array_equal(subtracted.y.val, 2 * SCALE)


def test_what_leads_to_a_logarithm_stays_in_float32() -> None:
    from coremltools.converters.mil.mil import types

    def spectrogram(mb: Any, x: Any) -> Any:
        h = mb.conv(x=x, weight=WEIGHTS["first"], name="first")
        power = mb.add(x=mb.mul(x=h, y=h), y=1e-7)
        return mb.conv(x=mb.mul(x=mb.log(x=power), y=0.1), weight=WEIGHTS["point"], name="y")

    rows = {"x": (ROWS[:16] / SCALE * 1e-3).astype(np.float32)}
    package = pack_program(build(spectrogram, (1, 3, 12, 12)))
    half = CoreMLReference(CoreMLQuantizer(package, rows).quantize(load_recipe("float16")))
    kinds = {operation.name: operation.outputs[0].dtype for operation in half.operations()}
    assert kinds["first"] == types.fp32
    assert [var.dtype for var in half.function.outputs] == [types.fp32]
    assert any(operation.op_type == "conv" and operation.x.dtype == types.fp16 for operation in half.operations())
    assert decibels(CoreMLReference(package).run(rows)["y"], half.run(rows)["y"]) > 45


def test_units_kept_in_float_are_named_in_what_is_left_and_count_against_the_promise(
    quantizer: CoreMLQuantizer,
) -> None:
    recipe = load_recipe("static_wi8c_ai8")
    small = quantizer.units[-1]
    kept = quantizer.inspect(quantizer.quantize(recipe, [small.name]))
    assert kept.quantized == kept.weights - small.weights
    assert "linear" in kept.float_operators
    with pytest.raises(QuantizationRefused, match="than the 90% that recipe"):
        quantizer.quantize(recipe, [quantizer.units[0].name])
    with pytest.raises(InvalidRequest, match="no units nothing"):
        quantizer.quantize(recipe, ["nothing"])


def test_core_ml_has_no_dynamic_range_mode(quantizer: CoreMLQuantizer) -> None:
    with pytest.raises(QuantizationRefused, match="int8-weights stores the same weights"):
        quantizer.quantize(load_recipe("dynamic_wi8c_af32"))


def test_sensitivities_rank_the_unit_whose_weights_round_worst_first() -> None:
    coarse = WEIGHTS["point"].copy()
    coarse[:, 0] *= 300.0  # one input channel so large that the others' weights round to nothing

    def sensitive(mb: Any, x: Any) -> Any:
        h = mb.relu6(x=mb.conv(x=x, weight=WEIGHTS["first"], name="first"))
        dead = mb.mul(x=h, y=np.array([0.0] + [1.0] * 15, np.float32).reshape(1, 16, 1, 1))
        return mb.identity(x=mb.conv(x=dead, weight=coarse, name="point"), name="y")

    quantizer = CoreMLQuantizer(pack_program(build(sensitive, (1, 3, 12, 12))), {"x": ROWS[:16] / SCALE})
    noise = quantizer.sensitivities(load_recipe("static_wi8c_ai8"))
    assert list(noise) == ["first", "point"]
    assert noise["point"] < noise["first"] - 10
    assert quantizer.sensitivities(load_recipe("weights_wi8c_af32"))["point"] < 20


def test_recurrent_weights_count_and_only_recipes_without_ranges_can_hold_them() -> None:
    package = pack_program(build(cell, (6, 1, 8)))
    rows = {"x": RNG.normal(size=(8, 6, 1, 8)).astype(np.float32)}
    quantizer = CoreMLQuantizer(package, rows)
    (unit,) = quantizer.units
    assert (unit.operators, unit.weights) == (("lstm",), 512)
    with pytest.raises(QuantizationRefused, match="only 0% of 512"):
        quantizer.quantize(load_recipe("static_wi8c_ai8"))
    half = quantizer.quantize(load_recipe("float16"))
    assert len(half) < len(package) - 512
    expected = CoreMLReference(package).run(rows)["y"]
    assert decibels(expected, CoreMLReference(half).run(rows)["y"]) > 50


def test_without_calibration_rows_there_are_no_ranges(package: bytes) -> None:
    with pytest.raises(TooLittleData, match="calibration rows"):
        CoreMLQuantizer(package, {"x": ROWS[:0]}).quantize(load_recipe("static_wi8c_ai8"))


def test_half_precision_scales_are_rounded_up_so_that_nothing_is_clipped() -> None:
    weight = (RNG.normal(size=(50, 30)) * 1e-3).astype(np.float16)
    codes, scale = weight_codes(weight, 0)
    assert scale.dtype == np.float16
    worst = np.abs(codes * scale.astype(np.float32)[:, None] - weight.astype(np.float32)).max(axis=1)
    assert (worst <= scale.astype(np.float32) * 0.5001).all()
    step, zero = pair_parameters(-1.0, 3.0, half=True)
    assert (127 - int(zero)) * float(step) >= 3.0 - float(step) / 2
    assert (-128 - int(zero)) * float(step) <= -1.0 + float(step) / 2
