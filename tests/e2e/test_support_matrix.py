"""The published support matrix against a run on the real models. `make bench-setup` gets them ready."""

from __future__ import annotations

import pytest

from bench.matrix import CASES, OUT_OF_TIME, Case, published, run_case
from bench.real_models.__main__ import BUILDERS
from bench.real_models.__main__ import main as make_models

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    assert make_models([]) == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_page_says_what_a_run_says(case: Case) -> None:
    stated = published()
    for cell in run_case(case):
        assert cell.status != "error", cell.reason
        status, reached, reason = stated[cell.case, cell.target]
        assert cell.status == status, cell.reason
        # Where a search ran out of time, then or now, how far it came is a matter of the machine.
        if cell.status == "ok" and OUT_OF_TIME not in reason + cell.reason:
            assert cell.precision == reached, cell.reason
        if cell.status == "refused":
            assert cell.reason, "a refusal without a reason"


def test_every_real_model_has_a_case() -> None:
    assert {case.model for case in CASES} == set(BUILDERS)
