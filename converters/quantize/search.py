"""Accuracy-aware quantization: the first precision that holds, with the fewest units left in float. Pure.

For each precision, from the one asked for down the ladder: every recipe as it is; where none holds, the units of the
best one go back to float, the most sensitive first, each step measured, until the model holds; then those that turn out
not to be needed are quantized again. Sensitivity orders the candidates and decides nothing: leaving a sensitive unit in
float can make a model worse, since the errors of neighbors may cancel.

Of so many candidates, the first that only just holds is likely to owe it to the rows that it was measured on, and would
fail on others. One that is chosen by its drop therefore holds by a standard error, where its precision has such a
candidate; where it has none, another 8-bit precision that does so is taken instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from converters.errors import InvalidRequest
from converters.quantize.base import Quantizer, Unit
from converters.quantize.found import FLOAT, Ended, Found, Kept, Tried
from converters.quantize.recipes import Recipe
from converters.quantize.trials import Candidate, Evaluate, Progress, Trials
from edge_runtime.bundle.manifest import Precision

__all__ = ["BUDGET", "INT8_SHARE", "Found", "Kept", "Tried", "search"]

INT8_SHARE = 0.9  # of the weight elements: less is not called int8
BUDGET = 60  # candidates of one precision that are made and measured


def search(
    quantizer: Quantizer,
    model: bytes,
    evaluate: Evaluate,
    *,
    recipes: Sequence[Recipe],
    limit: float,
    error: Evaluate | None = None,
    uncertainty: Evaluate = lambda data: 0.0,
    minimum_share: float = INT8_SHARE,
    budget: int = BUDGET,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> Found:
    """The first precision among ``recipes`` whose drop stays within ``limit``; else the float ``model``.

    ``evaluate`` gives a file's drop, of accuracy or of agreement with the source (0.01 is one point), on rows that gave
    no ranges; what is not a number counts as infinite. Of several recipes that hold, the one with the least ``error``
    is taken: a finer measure than the drop, which on few rows is a matter of luck (without it: with the least drop);
    of equal ones, the first. ``uncertainty`` is the standard error of a file's drop. ``recipes`` come in the order in
    which to try them, as `ladder_from` gives them.

    At most ``budget`` candidates are measured for each precision, its recipes first; none with units in float once
    ``seconds`` have passed on ``clock`` since that precision was begun, so that one that cannot hold leaves the next
    its own time. Every int8 candidate has at least ``minimum_share`` of its weights in INT8, or what its recipe asks
    for if that is more.

    Raises `InvalidRequest` for a limit that is not finite, or a budget below the recipes of one precision.
    """
    ladder: dict[Precision, list[Recipe]] = {}
    for recipe in recipes:
        ladder.setdefault(recipe.precision, []).append(recipe)
    if not math.isfinite(limit):
        raise InvalidRequest(f"the accuracy limit is a number like 0.01, not {limit}")
    if any(len(group) > budget for group in ladder.values()):
        raise InvalidRequest(f"a budget of {budget} candidates is less than one for each recipe")
    if not quantizer.units:
        ladder = {}  # nothing to quantize: every precision would be the float model again
    trials = Trials(quantizer, evaluate, error, uncertainty, limit, minimum_share, budget, seconds, clock, progress)
    exhausted: dict[Precision, Ended] = {}
    for precision, group in ladder.items():
        trials.start()
        chosen = _search_one(trials, group)
        if trials.ended:
            exhausted[precision] = trials.ended
        if chosen is not None:
            later = [each for each in recipes if list(ladder).index(each.precision) > list(ladder).index(precision)]
            return _found(trials, _surer(trials, chosen, later), exhausted)
    return _float(trials, model, exhausted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """With the sensitivities of the kept units, and the candidates without each of them, where measured."""

    candidate: Candidate
    sensitivities: Mapping[str, float]
    without: Mapping[str, Candidate]


def _search_one(trials: Trials, recipes: Sequence[Recipe]) -> _Chosen | None:
    """The best candidate of one precision that holds."""
    plain = [made for recipe in recipes if (made := trials.make(recipe, frozenset())) is not None]
    holding = [candidate for candidate in plain if trials.holds(candidate)]
    if holding:
        nearest = min(holding, key=lambda each: each.distance)
        return _Chosen(candidate=nearest, sensitivities={}, without={})
    if not plain or recipes[0].weight_bits > 8:  # half-precision floats lose nothing that a choice would give back
        return None
    if not trials.go_on():
        return None
    start = min(plain, key=lambda candidate: candidate.distance)
    sensitivities = trials.quantizer.sensitivities(start.recipe)
    grown = _grow(trials, start, sensitivities)
    if not trials.holds(grown):
        return None
    pruned, without = _prune(trials, grown, sensitivities)
    return _Chosen(candidate=pruned, sensitivities=sensitivities, without=without)


def _surer(trials: Trials, chosen: _Chosen, later: Sequence[Recipe]) -> _Chosen:
    """Instead of one that was grown and holds only just, the first 8-bit recipe below that holds clearly, if any."""
    if not chosen.candidate.kept or trials.holds_clearly(chosen.candidate):
        return chosen
    trials.start()
    for recipe in later:
        if recipe.weight_bits == 8:
            made = trials.make(recipe, frozenset())
            if made is not None and trials.holds_clearly(made):
                return _Chosen(candidate=made, sensitivities={}, without={})
    return chosen


def _grow(trials: Trials, start: Candidate, sensitivities: Mapping[str, float]) -> Candidate:
    """Units back to float, the most sensitive first, until the model holds clearly. Where it never does so, the nearest
    one that holds at all, if any.

    A step that succeeds is followed by one of twice as many units; one that leads away from the source is taken back
    and tried unit by unit, so that a unit that harms does not stop those behind it, nor, at the end, the whole.
    """
    now, holding = start, None
    order = sorted(sensitivities, key=lambda each: (sensitivities[each], each))
    at, count = 0, 1
    while at < len(order) and not trials.holds_clearly(now) and not trials.ended:
        units = order[at : at + count]
        step = trials.make(now.recipe, now.kept.union(units))
        if step is not None and step.distance <= now.distance:
            now = step
            holding = now if trials.holds(now) else holding
            at, count = at + len(units), 2 * count
        elif count > 1:
            count = 1
        else:
            at += 1
    if holding is not None or trials.holds(now):
        return holding or now
    for name in order:  # one that harms may have come with others that help more
        without = trials.make(now.recipe, now.kept - {name}) if name in now.kept else None
        if without is not None and without.distance < now.distance:
            now = without
    return now


def _prune(
    trials: Trials, start: Candidate, sensitivities: Mapping[str, float]
) -> tuple[Candidate, Mapping[str, Candidate]]:
    """Without the kept units that are not needed, the least sensitive first; and what is made without those that are.

    Bisected first: growing doubles its steps, so that the last one brought many too many, and time may end this. Then
    one by one, over and over until none goes, so that the result needs every one of its own.
    """
    now = start
    good_enough = trials.holds_clearly if trials.holds_clearly(start) else trials.holds
    order = sorted(start.kept, key=lambda each: (sensitivities[each], each))
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        fewer = trials.make(now.recipe, frozenset(order[:middle]))
        if fewer is not None and good_enough(fewer):
            now, enough = fewer, middle
        else:
            too_few = middle
    while True:
        before, needed = now, dict[str, Candidate]()
        for name in sorted(now.kept, key=lambda each: (-sensitivities[each], each)):
            without = trials.make(now.recipe, now.kept - {name})
            if without is not None and good_enough(without):
                now = without
            elif without is not None:
                needed[name] = without
        if now is before:
            return now, needed


def _found(trials: Trials, chosen: _Chosen, exhausted: Mapping[Precision, Ended]) -> Found:
    candidate = chosen.candidate
    units = {unit.name: unit for unit in trials.quantizer.units}
    names = sorted(candidate.kept, key=lambda name: (chosen.sensitivities[name], name))
    ended = exhausted.get(candidate.recipe.precision)
    taken = (candidate.recipe.name, tuple(sorted(candidate.kept)))
    return Found(
        data=candidate.data,
        precision=candidate.recipe.precision,
        recipe=candidate.recipe.name,
        drop=candidate.drop,
        holds=True,
        quantized=candidate.quantized,
        kept=tuple(
            _kept(trials, units[name], chosen.sensitivities[name], chosen.without.get(name), ended) for name in names
        ),
        spared=trials.quantizer.spared(candidate.recipe, candidate.kept),
        exhausted=exhausted,
        tried=tuple(replace(each, chosen=(each.recipe, each.kept) == taken) for each in trials.tried),
    )


def _kept(trials: Trials, unit: Unit, sensitivity: float, without: Candidate | None, ended: Ended | None) -> Kept:
    return Kept(
        unit=unit,
        sensitivity=sensitivity,
        drop_without=None if without is None else without.drop,
        uncertainty_without=0.0 if without is None else trials.uncertainty(without),
        ended=ended if without is None else None,
    )


def _float(trials: Trials, model: bytes, exhausted: Mapping[Precision, Ended]) -> Found:
    """The float model, which is the last resort whatever it measures."""
    quantized = trials.quantizer.inspect(model)
    drop = trials.drop(model)
    holds = trials.record(
        FLOAT, None, frozenset(), drop=drop, error=trials.error(model), quantized=quantized, size=len(model)
    )
    return Found(
        data=model,
        precision=FLOAT,
        recipe=None,
        drop=drop,
        holds=holds,
        quantized=quantized,
        kept=(),
        spared=(),
        exhausted=exhausted,
        tried=tuple(replace(each, chosen=each.recipe is None) for each in trials.tried),
    )
