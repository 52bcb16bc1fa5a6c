"""The operator's command: well-behaved, broken and hostile ones, each a real process."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from model_server.errors import ReadinessBroken, ReadinessRefused
from model_server.releases.readiness.hook import MAX_OUTPUT_BYTES, run_hook
from model_server.releases.readiness.report import Check, HookReport
from model_server.releases.watch import UNWATCHED, Watch

Run = Callable[..., HookReport]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    bundle = tmp_path / "the.bundle"
    bundle.write_bytes(b"a bundle")
    secrets = {"EDGESHIP_API_KEY": "hunter2", "PGPASSWORD": "hunter2", "AWS_SECRET_ACCESS_KEY": "hunter2"}

    def run(script: str, *, timeout_s: float = 60, watch: Watch = UNWATCHED) -> HookReport:
        return run_hook(
            ("/bin/sh", "-c", script, "ready"),
            bundle,
            {"model": "exercise", "manifest": {"large": "x" * 1_000_000}},
            timeout_s=timeout_s,
            environment={**secrets, "PATH": os.environ["PATH"]},
            watch=watch,
        )

    return run


def test_what_it_says_is_kept_when_it_passes(run: Run) -> None:
    checks = [{"name": "latency", "passed": True, "detail": "3 ms"}, {"name": "fair", "passed": False}]
    report = run(f"cat > /dev/null; echo '{json.dumps({'summary': 'ready', 'checks': checks})}'")
    assert (report.command, report.summary) == ("/bin/sh", "ready")
    assert report.checks == (
        Check(name="latency", passed=True, detail="3 ms"),
        Check(name="fair", passed=False, detail=""),
    )


def test_it_is_given_the_bundle_and_the_manifest_and_works_in_an_empty_folder(run: Run, tmp_path: Path) -> None:
    report = run(
        'test "$(cat "$1")" = "a bundle" && test -z "$(ls -A)" && test "$HOME" = "$PWD" && '
        f"{sys.executable} -c 'import json, sys; print(json.dumps(dict(summary=json.load(sys.stdin)[\"model\"])))'"
    )
    assert report.summary == "exercise"


def test_none_of_the_servers_secrets_is_in_its_environment(run: Run) -> None:
    with pytest.raises(ReadinessRefused) as refused:
        run("env >&2; exit 1")
    assert "PATH=" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_any_other_exit_status_refuses_with_the_last_lines_that_it_said(run: Run) -> None:
    many = "i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done"
    with pytest.raises(ReadinessRefused, match=r"exit status 3: .*the model is \[31munfair") as refused:
        run(f"{many}; printf 'the model is \\033[31munfair\\n' >&2; exit 3")
    assert "line 48" in str(refused.value)
    assert "line 8" not in str(refused.value)
    assert "\033" not in str(refused.value), "what it says reaches people's terminals"
    with pytest.raises(ReadinessRefused, match="by signal 9, and said nothing"):
        run("kill -9 $$")


def test_the_checks_that_failed_are_the_reason_where_it_names_them(run: Run) -> None:
    checks = [{"name": "a", "passed": True}, {"name": "b", "passed": False, "detail": "too slow"}]
    with pytest.raises(ReadinessRefused, match=r"exit status 1: no; b: too slow$"):
        run(f"echo '{json.dumps({'summary': 'no', 'checks': checks})}'; exit 1")


@pytest.mark.parametrize(
    "output",
    ["nonsense", "[]", "7", '{"summary": 7}', '{"checks": [{"name": "x", "passed": "yes"}]}', "[" * 50_000, r"\377"],
)
def test_an_output_that_is_no_report_is_not_kept_and_decides_nothing(run: Run, output: str) -> None:
    report = run(f"printf '{output}'")
    assert (report.summary, report.checks) == ("its output is not a report, and was not kept", ())
    with pytest.raises(ReadinessRefused):
        run(f"printf '{output}'; exit 1")


def test_a_flood_of_output_is_read_and_thrown_away(run: Run) -> None:
    report = run("head -c 30000000 /dev/zero; head -c 30000000 /dev/zero >&2")
    assert report.summary == f"its output has more than {MAX_OUTPUT_BYTES} bytes and was not kept"
    with pytest.raises(ReadinessRefused, match=r"did not end within 0\.5 s"):
        run("yes; true", timeout_s=0.5)


def test_one_that_hangs_is_stopped_with_everything_that_it_started(run: Run, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ReadinessRefused, match="did not end within 1 s"):
        run(f"trap '' TERM INT HUP; sleep 600 & echo $! > {pid}; sleep 600", timeout_s=1)
    wait_for_the_end_of(int(pid.read_text()))


def test_what_it_leaves_running_neither_holds_it_up_nor_stays(run: Run, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    assert run(f"sleep 600 & echo $! > {pid}; exit 0").checks == ()
    wait_for_the_end_of(int(pid.read_text()))


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 30
    with suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_one_that_cannot_be_started_is_an_error_and_no_pass(tmp_path: Path) -> None:
    script = tmp_path / "ready"
    script.write_text("echo")
    for command in (("/no/such/command",), (str(script),)):
        with pytest.raises(ReadinessBroken, match=r"releases\.readiness"):
            run_hook(command, script, {}, timeout_s=1, environment={}, watch=UNWATCHED)


def test_a_job_that_is_cancelled_stops_it(run: Run) -> None:
    class Cancelled(Exception):
        pass

    class Impatient:
        def about(self, model: str, release: int) -> None: ...

        def at(self, stage: str, step: int = 0, steps: int = 0) -> None: ...

        def check(self) -> None:
            raise Cancelled

    with pytest.raises(Cancelled):
        run("sleep 600", watch=Impatient())
