"""Every mode and gate sends a request where the policy says, whatever is or is not there."""

from __future__ import annotations

import pytest

from edge_runtime.errors import ConfigurationError
from edge_runtime.hybrid.policy import Mode, Route, RoutingPolicy, after_local, first
from edge_runtime.prediction import REASON_CELLS, Reason


@pytest.mark.parametrize(
    ("policy", "situation", "route"),
    [
        ({}, {}, ("device", Reason.CONFIDENT)),
        ({}, {"cloud": False}, ("device", Reason.CONFIDENT)),
        ({}, {"local": False}, ("cloud", Reason.NO_LOCAL_MODEL)),
        ({}, {"local": False, "cloud": False}, ("chain", Reason.NO_LOCAL_MODEL)),
        ({"out_of_range": "route"}, {"out_of_range": True}, ("cloud", Reason.GATE_RANGE)),
        ({"out_of_range": "route"}, {"out_of_range": True, "cloud": False}, ("chain", Reason.GATE_RANGE)),
        ({"out_of_range": "accept"}, {"out_of_range": True}, ("device", Reason.CONFIDENT)),
        ({"largest_local_bytes": 100}, {"size": 100}, ("device", Reason.CONFIDENT)),
        ({"largest_local_bytes": 100}, {"size": 101}, ("cloud", Reason.GATE_SIZE)),
        ({"mode": "only_on_device", "largest_local_bytes": 100}, {"size": 101}, ("chain", Reason.GATE_SIZE)),
        ({"mode": "only_on_device"}, {"local": False}, ("chain", Reason.NO_LOCAL_MODEL)),
        ({"mode": "prefer_in_cloud"}, {}, ("cloud", Reason.PREFERRED_CLOUD)),
        ({"mode": "prefer_in_cloud"}, {"cloud": False}, ("chain", Reason.NO_CLOUD)),
        ({"mode": "only_in_cloud"}, {"local": False}, ("cloud", Reason.PREFERRED_CLOUD)),
        ({"mode": "only_in_cloud"}, {"cloud": False}, ("chain", Reason.NO_CLOUD)),
    ],
)
def test_a_request_goes_first_where_the_policy_says(policy: dict, situation: dict, route: tuple) -> None:  # type: ignore[type-arg]
    given = {"local": True, "cloud": True, "out_of_range": False, "size": 10} | situation
    assert first(RoutingPolicy(**policy), **given) == Route(*route)


@pytest.mark.parametrize(
    ("policy", "cloud", "confidence", "threshold", "route"),
    [
        ({}, True, 0.9, 0.5, ("device", Reason.CONFIDENT)),
        ({}, True, 0.5, 0.5, ("device", Reason.CONFIDENT)),
        ({}, True, 0.4, 0.5, ("cloud", Reason.DEFERRED)),
        ({}, False, 0.4, 0.5, ("chain", Reason.LOW_CONFIDENCE_KEPT)),
        ({"use_cloud_when_deferred": False}, True, 0.4, 0.5, ("chain", Reason.LOW_CONFIDENCE_KEPT)),
        ({"mode": "only_on_device"}, True, 0.4, 0.5, ("chain", Reason.LOW_CONFIDENCE_KEPT)),
        ({}, True, None, None, ("device", Reason.UNSCORED)),
        ({}, True, 0.9, None, ("device", Reason.UNSCORED)),
    ],
)
def test_an_answer_of_the_device_is_trusted_asked_about_or_kept(
    policy: dict,  # type: ignore[type-arg]
    cloud: bool,
    confidence: float | None,
    threshold: float | None,
    route: tuple,  # type: ignore[type-arg]
) -> None:
    found = after_local(RoutingPolicy(**policy), cloud=cloud, confidence=confidence, threshold=threshold)
    assert found == Route(*route)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "prefer_on_phone"},
        {"out_of_range": "ignore"},
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"cloud_timeout_s": 0},
        {"connect_timeout_s": float("inf")},
        {"cache_bytes": -1},
        {"cache_age_s": float("nan")},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigurationError):
        RoutingPolicy(**wrong)


def test_modes_may_be_given_as_text() -> None:
    assert RoutingPolicy(mode="only_in_cloud").mode is Mode.ONLY_IN_CLOUD  # type: ignore[arg-type]


def test_every_reason_has_a_telemetry_cell_that_never_moves() -> None:
    assert list(REASON_CELLS.values()) == list(range(len(Reason)))
    assert len(Reason) <= 16
    assert [REASON_CELLS[r] for r in (Reason.CONFIDENT, Reason.DEFERRED, Reason.BREAKER_OPEN)] == [0, 2, 13]
