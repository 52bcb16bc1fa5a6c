"""`release stage` and `jobs`: uploading a bundle, and following the job that stages it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from model_server.client import Client
from model_server.commands.show import show_job, show_jobs, show_readiness, show_release
from model_server.errors import ServerRefused, ServerUnreachable, SettingsError

__all__ = ["follow", "run_jobs", "run_stage"]

Answer = dict[str, Any]
Say = Callable[[str], None]

LOOK_S = (0.1, 2.0)  # how often the server is asked: at first, and later on
UNREACHABLE_S = 120.0  # a server that starts again is back by then


def run_stage(args: argparse.Namespace, client: Client, console: Console) -> Answer:
    """Upload the bundle and follow its job to the end. What it answers is the release; the job with ``--no-wait``."""
    if not args.bundle.is_file():
        raise SettingsError(f"there is no bundle {args.bundle}")
    try:
        with _uploading(console, args.bundle.stat().st_size) as sent:
            options = {"ceiling": args.ceiling, "allow_interface_change": str(args.allow_interface_change).lower()}
            job: Answer = client.upload("/v1/releases", args.bundle, options, sent)
    except KeyboardInterrupt:
        print("the upload was broken off; nothing was staged", file=sys.stderr)
        raise
    if args.no_wait:
        show_job(console, job)
        console.print(f"Follow it with: edgeship-server jobs show {job['id']} --wait", soft_wrap=True)
        return job
    return _followed(job, client, console)


def run_jobs(args: argparse.Namespace, action: str, client: Client, console: Console) -> Answer:
    if action == "list":
        answer: Answer = client.get("/v1/jobs")
        show_jobs(console, answer["jobs"])
        return answer
    path = f"/v1/jobs/{args.job}"
    if action == "cancel":
        answer = client.delete(path)
    else:
        answer = client.get(path)
        if args.wait:
            return _followed(answer, client, console)
    show_job(console, answer)
    return answer


def follow(
    client: Client,
    job: Answer,
    say: Say,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Answer:
    """The job once it has ended. ``say`` hears where it is, whenever that changes. A server that is away for a moment
    is waited for.

    Raises: ServerUnreachable, ServerRefused.
    """
    pause, most = LOOK_S
    shown, heard = "", monotonic()
    while job["state"] in ("waiting", "running"):
        text = "cancelling" if job["cancelling"] else job["progress"] or job["state"]
        if text != shown:
            shown = text
            say(text)
        sleep(pause)
        pause = min(pause * 1.5, most)
        try:
            job = client.get(f"/v1/jobs/{job['id']}")
            heard = monotonic()
        except ServerUnreachable as error:
            if monotonic() - heard > UNREACHABLE_S:
                raise ServerUnreachable(f"{error}. The job may go on: {_how_to_go_on(job)}") from error
    return job


def _followed(job: Answer, client: Client, console: Console) -> Answer:
    try:
        with _following(console) as say:
            job = follow(client, job, say)
    except KeyboardInterrupt:
        print(f"the server goes on with it: {_how_to_go_on(job)}", file=sys.stderr)
        raise
    if job["state"] == "failed":
        problem = job["problem"]
        raise ServerRefused(problem["status"], f"job {job['id']}: {problem['status']} {problem['detail']}")
    if job["state"] == "cancelled":
        raise ServerRefused(409, f"job {job['id']} was cancelled: nothing was staged")
    release: Answer | None = job.get("staged")
    if release is None:  # it was there, and was withdrawn
        show_job(console, job)
        return job
    show_release(console, release)
    show_readiness(console, release)
    return release


def _how_to_go_on(job: Answer) -> str:
    return f"`edgeship-server jobs show {job['id']} --wait` follows it, `jobs cancel {job['id']}` ends it"


@contextmanager
def _uploading(console: Console, size: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("uploading"), BarColumn(30), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=size)
        yield lambda sent: bar.update(task, completed=sent)


@contextmanager
def _following(console: Console) -> Iterator[Say]:
    """One line that changes at a terminal, a line for each step elsewhere."""
    if not console.is_terminal:
        yield lambda text: console.print(text, markup=False)
        return
    with console.status("waiting") as status:
        yield lambda text: status.update(text)
