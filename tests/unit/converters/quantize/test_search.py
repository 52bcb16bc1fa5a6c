from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import ConversionFailed, InvalidRequest, QuantizationRefused
from converters.quantize.base import Unit
from converters.quantize.recipes import Recipe, ladder_from, load_recipe, recipes_of
from converters.quantize.search import INT8_SHARE, search
from converters.quantize.weights import Quantized

FLOAT = b"float"
LADDER = ladder_from("int8")


class FakeQuantizer:
    """Units with a loss each, which add up. A file says which recipe made it and what it keeps in float."""

    target = "onnx"

    def __init__(self, losses: dict[str, float], weights: dict[str, int], refused: Collection[str] = ()) -> None:
        self.losses, self.weights, self.refused = losses, weights, refused
        self.float_loss = 0.0
        self.scale = {"int8": 1.0, "int8-dynamic": 0.5, "int8-weights": 0.1, "fp16": 0.001}

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(Unit(name=n, operators=("Conv",), weights=w) for n, w in self.weights.items())

    def quantize(self, recipe: Recipe, keep_float: Collection[str] = ()) -> bytes:
        if recipe.precision in self.refused:
            raise QuantizationRefused(f"no {recipe.precision} here")
        return json.dumps([recipe.name, recipe.precision, sorted(keep_float)]).encode()

    def inspect(self, data: bytes) -> Quantized:
        total = sum(self.weights.values())
        if data == FLOAT:
            return Quantized(weights=total, quantized=0, float_operators=("Conv",))
        kept = json.loads(data)[2]
        return Quantized(
            weights=total, quantized=total - sum(self.weights[n] for n in kept), float_operators=("Conv",) * bool(kept)
        )

    def spared(self, recipe: Recipe, keep_float: Collection[str]) -> tuple[str, ...]:
        return tuple(f"before {name}" for name in sorted(keep_float))

    def sensitivities(self, recipe: Recipe) -> dict[str, float]:
        return {name: 40 - loss for name, loss in self.losses.items()}

    def drop(self, data: bytes) -> float:
        if data == FLOAT:
            return self.float_loss
        _, precision, kept = json.loads(data)
        return self.float_loss + self.scale[precision] * sum(
            loss for name, loss in self.losses.items() if name not in kept
        )


def equal(losses: dict[str, float]) -> FakeQuantizer:
    return FakeQuantizer(losses, dict.fromkeys(losses, 10))


def twenty(**losses: float) -> FakeQuantizer:
    """Twenty units of ten weights each; those not named lose nothing. Two of them may stay in float."""
    return equal({**{f"quiet{i}": 0.0 for i in range(20 - len(losses))}, **losses})


def test_a_recipe_that_holds_as_it_is_keeps_nothing_in_float() -> None:
    fake = twenty(a=0.004)
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01)
    assert (found.precision, found.kept, found.holds, found.exhausted) == ("int8", (), True, {})
    assert found.quantized.share == 1.0
    assert {each.recipe for each in found.tried} == {r.name for r in LADDER if r.precision == "int8"}


def test_when_time_is_up_every_recipe_was_tried_but_no_unit_goes_back_to_float() -> None:
    fake = twenty(loud=0.05)
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, seconds=0)
    assert (found.precision, found.kept) == ("int8-weights", ())
    assert found.exhausted == {"int8": "time", "int8-dynamic": "time"}
    assert {each.recipe for each in found.tried if each.precision == "int8"} == {
        recipe.name for recipe in LADDER if recipe.precision == "int8"
    }


def test_a_precision_that_uses_up_its_time_leaves_the_next_its_own() -> None:
    fake, seconds = twenty(a=0.03, b=0.03, c=0.012), 5.0
    now = 0.0

    def slow_drop(data: bytes) -> float:
        nonlocal now
        now += seconds / 4 if json.loads(data)[1] == "int8" else seconds / 10
        return fake.drop(data)

    found = search(fake, FLOAT, slow_drop, recipes=LADDER, limit=0.01, seconds=seconds, clock=lambda: now)
    assert now > seconds
    assert (found.precision, {each.unit.name for each in found.kept}) == ("int8-dynamic", {"a", "b"})
    assert found.exhausted == {"int8": "time"}


def test_only_the_unit_that_costs_too_much_stays_float_and_the_reason_is_measured() -> None:
    fake = twenty(loud=0.05, soft=0.004)
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01)
    (kept,) = found.kept
    assert kept.unit.name == "loud"
    assert found.spared == ("before loud",), "nothing computes in float unsaid"
    assert kept.drop_without == pytest.approx(0.054)
    assert kept.reason == "40.0 dB when quantized alone; quantized too, the drop would be 0.0540"
    assert found.drop == pytest.approx(0.004)
    assert found.quantized.share == pytest.approx(0.95)


def test_a_sensitive_unit_that_turns_out_not_to_be_needed_is_quantized_again() -> None:
    """The ranking says `decoy` first; only `culprit` matters."""
    fake = twenty(culprit=0.05, decoy=0.001)
    fake.sensitivities = lambda recipe: {"decoy": 1.0, "culprit": 2.0}  # type: ignore[method-assign]
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01)
    assert [each.unit.name for each in found.kept] == ["culprit"]


def test_a_step_that_makes_the_model_worse_is_taken_back() -> None:
    fake = twenty(a=0.02, b=0.015)
    plain = fake.drop

    def drop(data: bytes) -> float:
        kept = [] if data == FLOAT else json.loads(data)[2]
        return plain(data) + (0.1 if "a" in kept else 0.0)

    found = search(fake, FLOAT, drop, recipes=LADDER, limit=0.025)
    assert [each.unit.name for each in found.kept] == ["b"]


def test_steps_are_judged_by_the_error_where_the_drop_is_too_coarse() -> None:
    """On few rows, what one unit costs does not show until another is in float too."""
    fake = twenty(a=0.02, b=0.02)

    def drop(data: bytes) -> float:
        kept = [] if data == FLOAT else json.loads(data)[2]
        return {0: 0.04, 1: 0.05, 2: 0.0}[len(kept)]

    found = search(fake, FLOAT, drop, recipes=LADDER, limit=0.01, error=fake.drop)
    assert (found.precision, sorted(each.unit.name for each in found.kept)) == ("int8", ["a", "b"])


def test_a_candidate_chosen_by_its_drop_holds_by_a_standard_error_where_one_does() -> None:
    """Of many candidates, the first that only just holds owes it to the rows at hand."""
    fake = twenty(a=0.05, b=0.009)
    sure = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01)
    assert [each.unit.name for each in sure.kept] == ["a"]
    unsure = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, uncertainty=lambda data: 0.002)
    assert [each.unit.name for each in unsure.kept] == ["a", "b"]
    assert [each.reason.rpartition("would be ")[2] for each in unsure.kept] == ["0.0500 ± 0.0020", "0.0090 ± 0.0020"]


def test_where_none_holds_by_a_standard_error_another_8_bit_precision_that_does_is_taken_else_the_one_that_holds() -> (
    None
):
    fake = twenty(a=0.05, b=0.009)

    def unsure(data: bytes) -> float:
        return {"int8": 0.5, "int8-dynamic": 0.5, "int8-weights": weights, "fp16": 0.0}[json.loads(data)[1]]

    weights = 0.0
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, uncertainty=unsure)
    assert (found.precision, found.kept, found.holds) == ("int8-weights", (), True)
    alone = search(fake, FLOAT, fake.drop, recipes=recipes_of("int8"), limit=0.01, uncertainty=unsure)
    assert (alone.precision, [each.unit.name for each in alone.kept]) == ("int8", ["a"])
    weights = 0.5
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, uncertainty=unsure)
    assert (found.precision, [each.unit.name for each in found.kept]) == ("int8", ["a"])


def test_a_recipe_that_holds_as_it_is_was_not_chosen_by_its_drop_and_needs_no_margin() -> None:
    fake = twenty(a=0.009)
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, uncertainty=lambda data: 0.5)
    assert (found.precision, found.kept) == ("int8", ())


def test_int8_never_keeps_more_than_a_tenth_of_the_weights_in_float_and_the_next_precision_is_tried() -> None:
    fake = FakeQuantizer({"head": 0.05, "rest": 0.0}, {"head": 30, "rest": 70})
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.03)
    assert found.precision == "int8-dynamic"
    refused = [each for each in found.tried if each.outcome == "refused"]
    assert {each.kept for each in refused} >= {("head",)}
    assert all(each.reason is not None and "70.0%" in each.reason for each in refused if each.kept == ("head",))


def test_a_precision_that_the_target_lacks_is_recorded_and_passed_over() -> None:
    fake = FakeQuantizer({"a": 0.5}, {"a": 100}, refused=("int8-dynamic",))
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.06)
    assert found.precision == "int8-weights"
    assert [each.reason for each in found.tried if each.precision == "int8-dynamic"] == ["no int8-dynamic here"]


def test_where_nothing_holds_the_float_model_is_returned_and_said_not_to_hold() -> None:
    fake = twenty(a=0.5)
    fake.float_loss = 0.2
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.1)
    assert (found.data, found.precision, found.recipe, found.holds) == (FLOAT, "fp32", None, False)
    assert [each.precision for each in found.tried][-1] == "fp32"
    assert {each.precision for each in found.tried} == {r.precision for r in LADDER} | {"fp32"}


def test_of_recipes_that_hold_the_one_with_the_least_error_is_taken() -> None:
    fake = twenty()
    errors = {recipe.name: float(at) for at, recipe in enumerate(reversed(LADDER))}
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.0, error=lambda data: errors[json.loads(data)[0]])
    assert found.recipe == [recipe.name for recipe in LADDER if recipe.precision == "int8"][-1]
    assert {each.recipe: each.error for each in found.tried} == {
        name: error for name, error in errors.items() if load_recipe(name).precision == "int8"
    }, "the record has what decided"


def test_a_tool_that_crashes_over_one_candidate_does_not_end_the_search() -> None:
    fake = twenty(a=0.05)
    made = fake.quantize

    def quantize(recipe: Recipe, keep_float: Collection[str] = ()) -> bytes:
        if recipe.name == "static_wi8c_ai8_q99" or len(keep_float) == 2:
            raise ConversionFailed("ai-edge-quantizer", "TypeError: no bytes", tool_output="much")
        return made(recipe, keep_float)

    fake.quantize = quantize  # type: ignore[method-assign]
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01)
    assert (found.precision, [each.unit.name for each in found.kept]) == ("int8", ["a"])
    (reason,) = {each.reason for each in found.tried if each.outcome == "refused"}
    assert reason == "ai-edge-quantizer: TypeError: no bytes"


def test_many_units_go_back_to_float_in_few_steps_and_one_that_harms_does_not_stop_those_behind_it() -> None:
    losses = {f"loud{i:02}": 0.1 - i / 1000 for i in range(40)}
    fake = FakeQuantizer(losses | {"rest": 0.0}, dict.fromkeys(losses, 1) | {"rest": 960})
    plain = fake.drop

    def drop(data: bytes) -> float:
        kept = [] if data == FLOAT else json.loads(data)[2]
        return plain(data) + 0.2 * ("loud07" in kept)

    found = search(fake, FLOAT, drop, recipes=recipes_of("int8"), limit=0.1, budget=200)
    assert "loud07" not in {each.unit.name for each in found.kept}
    assert found.precision == "int8"
    grown = [each for each in found.tried if each.kept]
    assert len(grown) < 2 * 39 + 15


def test_where_time_is_short_what_the_last_step_brought_too_many_goes_by_halves() -> None:
    losses = {f"loud{i}": 0.02 for i in range(8)} | {f"quiet{i:03}": 0.0001 * (i < 10) for i in range(192)}
    fake, now = equal(losses), 0.0

    def slow_drop(data: bytes) -> float:
        nonlocal now
        now += 1.0
        return fake.drop(data)

    recipes = recipes_of("int8")
    grown = len(recipes) + 4  # steps of 1, 2, 4 and 8 units
    found = search(
        fake, FLOAT, slow_drop, recipes=recipes, limit=0.015, seconds=grown + 4, clock=lambda: now, minimum_share=0.9
    )
    assert found.exhausted == {"int8": "time"}
    assert {each.unit.name for each in found.kept} == {f"loud{i}" for i in range(8)}


def test_a_drop_that_is_not_a_number_never_holds() -> None:
    fake = twenty()
    found = search(
        fake, FLOAT, lambda data: 0.0 if data == FLOAT else float("nan"), recipes=LADDER, limit=1.0, budget=6
    )
    assert (found.precision, found.holds) == ("fp32", True)
    assert found.exhausted == {"int8": "candidates"}


def test_a_drop_that_is_the_limit_but_for_rounding_holds() -> None:
    fake = twenty()
    found = search(fake, FLOAT, lambda data: 1 - 0.995, recipes=LADDER, limit=0.005)
    assert found.precision == "int8"


def test_progress_counts_the_candidates_of_a_precision() -> None:
    fake = twenty(loud=0.05)
    said: list[tuple[str, int, int]] = []
    search(fake, FLOAT, fake.drop, recipes=LADDER, limit=0.01, budget=9, progress=lambda *each: said.append(each))
    assert [done for _, done, _ in said] == list(range(len(said)))
    assert all(total == 9 for _, _, total in said)
    assert said[-1][0].endswith("1 in float")


@pytest.mark.parametrize(("limit", "budget"), [(float("nan"), 60), (0.01, 2)])
def test_a_search_that_cannot_end_well_is_refused(limit: float, budget: int) -> None:
    fake = twenty()
    with pytest.raises(InvalidRequest):
        search(fake, FLOAT, fake.drop, recipes=LADDER, limit=limit, budget=budget)


UNITS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.floats(0, 0.1), st.integers(1, 40)), min_size=1, max_size=8
)


@given(UNITS, st.floats(0, 0.1), st.floats(0, 0.05), st.integers(4, 40))
def test_what_is_found_holds_or_is_float_and_int8_is_always_nine_tenths_int8(
    units: dict[str, tuple[float, int]], limit: float, float_loss: float, budget: int
) -> None:
    fake = FakeQuantizer({n: loss for n, (loss, _) in units.items()}, {n: weight for n, (_, weight) in units.items()})
    fake.float_loss = float_loss
    found = search(fake, FLOAT, fake.drop, recipes=LADDER, limit=limit, budget=budget)
    assert found.drop == fake.drop(found.data)
    assert found.holds == (found.drop <= limit + 1e-9)
    assert found.holds or found.precision == "fp32"
    (chosen,) = (each for each in found.tried if each.chosen)
    assert (chosen.precision, chosen.recipe, chosen.drop) == (found.precision, found.recipe, found.drop)
    assert set(chosen.kept) == {each.unit.name for each in found.kept}
    if found.precision == "int8":
        assert found.quantized.share >= INT8_SHARE
    kept = [] if found.data == FLOAT else json.loads(found.data)[2]
    assert sorted(each.unit.name for each in found.kept) == kept, "nothing stays float unsaid"
    for each in found.kept:
        assert each.drop_without is None or each.drop_without > limit, "only what is needed stays float"
    for precision in {recipe.precision for recipe in LADDER}:
        measured = [each for each in found.tried if each.precision == precision and each.outcome != "refused"]
        assert len(measured) <= budget
    if not found.exhausted:
        assert all(each.drop_without is not None for each in found.kept)


def test_a_recipe_that_asks_for_a_larger_share_gets_it() -> None:
    strict = replace(load_recipe("static_wi8c_ai8"), minimum_weight_share=0.97)
    fake = twenty(loud=0.05)
    found = search(fake, FLOAT, fake.drop, recipes=(strict,), limit=0.01)
    assert found.precision == "fp32"
