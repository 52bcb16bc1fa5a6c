"""Tables for people. Programs use ``--json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_runtime.bundle import FileRef
from model_server.quantities import format_ceiling
from model_server.releases.signing_request import Review

__all__ = [
    "show_job",
    "show_jobs",
    "show_keys",
    "show_readiness",
    "show_release",
    "show_releases",
    "show_review",
    "show_rollout",
    "show_status",
    "table",
]

GOLDEN = ".golden.npz"


def show_review(console: Console, review: Review) -> None:
    """The difference that a signature would approve."""
    files = table(
        f"{review.model} {review.release}: to be added to releases-{review.model}",
        ["file", "bytes", "sha256"],
        [(ref.file, f"{ref.bytes:,}", ref.sha256[:16]) for ref in _artifacts_first(review.files)],
    )
    files.columns[1].no_wrap = files.columns[2].no_wrap = True
    console.print(files)
    console.print(
        f"Metadata version {review.metadata_version}, valid until {review.expires:%Y-%m-%d}. {review.kept} published "
        f"files stay as they are. Ceiling: {format_ceiling(review.ceiling)}. Audit head: {review.audit_head or 'none'}."
    )


def _artifacts_first(files: Sequence[FileRef]) -> list[FileRef]:
    """Artifacts, then documents, then golden examples."""
    artifacts = {ref.file.removesuffix(GOLDEN) for ref in files if ref.file.endswith(GOLDEN)}
    return sorted(files, key=lambda ref: (ref.file not in artifacts, ref.file.endswith(GOLDEN), ref.file))


def show_release(console: Console, release: Mapping[str, Any]) -> None:
    console.print(
        f"{release['model']} {release['release']} ({escape(release['version'])}): {release['state']}, signed by "
        f"{_people(release)} ({release['threshold']} needed)"
    )


def show_releases(console: Console, releases: Sequence[Mapping[str, Any]]) -> None:
    console.print(
        table(
            "Releases",
            ["release", "version", "state", "signed by", "staged", "published"],
            [
                (
                    str(release["release"]),
                    release["version"],
                    release["state"],
                    _people(release),
                    _time(release["staged_at"]),
                    _time(release["published_at"]),
                )
                for release in releases
            ],
        )
    )


def show_readiness(console: Console, release: Mapping[str, Any]) -> None:
    """What the server says that its gate found."""
    found = release["readiness"]
    if found is None:
        console.print("Readiness: it was staged by a server that did not judge it.")
        return
    hook = found["hook"]
    checks = [("", check) for check in found["checks"]]
    checks += [] if hook is None else [(f"{hook['command']}: ", check) for check in hook["checks"]]
    console.print(
        table(
            "Readiness, as the server says",
            ["check", "passed", "detail"],
            [(before + check["name"], "yes" if check["passed"] else "no", check["detail"]) for before, check in checks],
        )
    )
    if hook is not None:
        said = f"{hook['command']} passed it in {hook['seconds']:g} s{': ' if hook['summary'] else ''}{hook['summary']}"
        console.print(escape(said), soft_wrap=True)


def show_job(console: Console, job: Mapping[str, Any]) -> None:
    said = f"job {job['id']}: {_job_state(job)}"
    if job["problem"] is not None:
        said += f": {job['problem']['detail']}"
    console.print(escape(said), soft_wrap=True)


def show_jobs(console: Console, jobs: Sequence[Mapping[str, Any]]) -> None:
    made = table(
        "Jobs",
        ["job", "state", "release", "staged by", "since"],
        [
            (
                job["id"],
                _job_state(job),
                f"{job['model']} {job['release']}" if job["model"] else "–",
                job["created_by"],
                _time(job["created"])[:16],
            )
            for job in jobs
        ],
    )
    made.columns[0].no_wrap = True  # to be copied
    console.print(made)


def _job_state(job: Mapping[str, Any]) -> str:
    if job["cancelling"] and job["state"] == "running":
        return "cancelling"
    return f"{job['state']}, {job['progress']}" if job["progress"] and not job["ended"] else str(job["state"])


def show_rollout(console: Console, rollout: Mapping[str, Any]) -> None:
    devices = rollout["devices"]
    console.print(
        f"{rollout['rollout']}: [bold]{rollout['state']}[/bold], {rollout['baseline'] or 'nothing'} → "
        f"{rollout['candidate']}; {devices['on_candidate']} of {devices['known']} known devices on the candidate, "
        f"{rollout['reports']} reports"
    )
    console.print(
        table(
            "Stages",
            ["stage", "share", "selected", "adopted", "known", "started", "ended"],
            [
                (
                    stage["stage"],
                    f"{stage['share']:.4%}",
                    str(stage["selected"] or "–"),  # 0: nobody was known when it started
                    str(stage["adopted"]),
                    str(stage["devices_known"]),
                    _time(stage["started"]),
                    _time(stage["ended"]),
                )
                for stage in rollout["stages"]
            ],
        )
    )
    if rollout["arms"]:
        console.print(
            table(
                "Arms",
                ["arm", "requests", "errors", "fallbacks", "refused", "P95 µs"],
                [
                    (
                        arm,
                        f"{counts['requests']:,}",
                        str(counts["errors"]),
                        str(counts["fallbacks"]),
                        str(counts["refused"]),
                        "–" if counts["latency_p95_us"] is None else f"{counts['latency_p95_us']:,.0f}",
                    )
                    for arm, counts in rollout["arms"].items()
                ],
            )
        )
    console.print(
        table(
            "Events",
            ["time", "event", "reason"],
            [(_time(event["time"]), event["event"], event["reason"]) for event in rollout["events"]],
        )
    )
    for wait in rollout["waiting_for"]:
        console.print(f"waiting for {wait}")


def show_keys(console: Console, keys: Mapping[str, Any]) -> None:
    console.print(
        table(
            "Roles",
            ["role", "needs", "owner", "key"],
            [
                (role["role"], str(role["threshold"]), key["owner"], key["keyid"][:16])
                for role in keys["roles"]
                for key in role["keys"]
            ],
        )
    )


def show_status(console: Console, status: Mapping[str, Any]) -> None:
    console.print(
        table(
            "Roles",
            ["role", "version", "expires", "kept", "alert"],
            [
                (
                    role["role"],
                    str(role["version"]),
                    _time(role["expires"]),
                    "offline" if role["offline"] else "online",
                    role["alert"],
                )
                for role in status["roles"]
            ],
        )
    )
    for alert in status["alerts"]:
        console.print(f"[bold]alert[/bold] ({alert['level']}): {escape(alert['message'])}")
    console.print(
        table(
            "Rollouts",
            ["rollout", "state", "baseline", "candidate", "started"],
            [
                (
                    rollout["rollout"],
                    rollout["state"],
                    str(rollout["baseline"] or "–"),
                    str(rollout["candidate"]),
                    _time(rollout["created"]),
                )
                for rollout in status["rollouts"]
            ],
        )
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of plain text: cells hold what others chose, and brackets in them are no markup."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def _people(release: Mapping[str, Any]) -> str:
    return ", ".join(signature["person"] for signature in release["signatures"]) or "nobody"


def _time(text: str | None) -> str:
    return text[:19].replace("T", " ") if text else "–"
