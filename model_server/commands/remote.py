"""`release`, `jobs`, `rollout`, `drift`, `devices` and `status`: what people do to a server over HTTP."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from rich.console import Console

from edge_runtime.bundle import check_channel, check_model
from model_server.client import Client
from model_server.commands.devices import run_devices
from model_server.commands.drift import show_approval, show_drift
from model_server.commands.jobs import run_jobs, run_stage
from model_server.commands.policy import is_policy, run_policy
from model_server.commands.show import show_readiness, show_release, show_releases, show_rollout, show_status
from model_server.commands.signing import run_fetch, run_sign, run_submit
from model_server.commands.trust import Ask
from model_server.errors import MalformedRequest
from model_server.rollouts.guardrails import Limits

__all__ = ["run_remote"]

Answer = dict[str, Any]


def run_remote(
    args: argparse.Namespace,
    client: Client,
    console: Console,
    passphrase: Ask,
    confirm: Callable[[str], bool],
) -> Answer:
    """Run one command; its answer is what ``--json`` prints. Tables go to ``console``."""
    group, _, action = args.run.partition(" ")
    if group == "status":
        answer: Answer = client.get("/v1/status")
        show_status(console, answer)
        return answer
    if group == "jobs":
        return run_jobs(args, action, client, console)
    if group == "devices":
        return run_devices(args, action, client, console)
    model = check_model(args.model) if "model" in args else ""
    if group == "release":
        return _release(args, action, model, client, console, passphrase, confirm)
    if group == "drift":
        return _drift(args, action, model, client, console)
    return _rollout(args, action, model, client, console)


def _release(
    args: argparse.Namespace,
    action: str,
    model: str,
    client: Client,
    console: Console,
    passphrase: Ask,
    confirm: Callable[[str], bool],
) -> Answer:
    if action == "fetch":
        return run_fetch(args, client, console)
    if action == "sign":
        return run_sign(args, client, console, passphrase, confirm)
    if action == "export":
        sha256 = client.download(f"/v1/releases/{model}/{args.release}/bundle", args.out)
        console.print(f"{args.out} holds {model} {args.release}, signed; sha256 {sha256}", soft_wrap=True)
        return {"model": model, "release": args.release, "bundle": str(args.out), "sha256": sha256}
    if action == "submit":
        return run_submit(args, client, console)
    if is_policy(args, action):
        return run_policy(args, action, model, client, console)
    if action == "stage":
        return run_stage(args, client, console)
    if action == "list":
        answer: Answer = client.get(f"/v1/releases/{model}")
        show_releases(console, answer["releases"])
        return answer
    path = f"/v1/releases/{model}/{args.release}"
    if action == "withdraw":
        client.delete(path)
        console.print(f"{model} {args.release} is withdrawn")
        return {"model": model, "release": args.release, "state": "withdrawn"}
    answer = client.post(f"{path}/publish") if action == "publish" else client.get(path)
    show_release(console, answer)
    if action == "show":
        show_readiness(console, answer)
    return answer


def _rollout(args: argparse.Namespace, action: str, model: str, client: Client, console: Console) -> Answer:
    path = f"/v1/rollouts/{check_channel(args.channel)}/{model}"
    if action == "status":
        answer: Answer = client.get(path)
    elif action == "start":
        answer = client.post(path, _start_body(args))
    else:
        answer = client.post(f"{path}/{action}")
    show_rollout(console, answer)
    return answer


def _drift(args: argparse.Namespace, action: str, model: str, client: Client, console: Console) -> Answer:
    path = f"/v1/drift/{model}"
    if action == "approve":
        days = {"from": args.first.isoformat(), "to": args.last.isoformat()}
        approval: Answer = client.post(f"{path}/baseline", {**days, "approved_by": args.by})
        show_approval(console, approval)
        return approval
    verdict: Answer = client.get(path)
    show_drift(console, verdict)
    return verdict


def _start_body(args: argparse.Namespace) -> dict[str, object]:
    limits = {
        limit.name: getattr(args, limit.name) for limit in fields(Limits) if getattr(args, limit.name) is not None
    }
    Limits.from_dict(limits)
    body: dict[str, object] = {
        "candidate": args.release,
        "stages": [stage.strip() for stage in args.stages.split(",")],
        "holdback": args.holdback,
        "on_breach": args.on_breach,
        "growth": args.growth,
        "limits": limits,
    }
    if args.baseline is not None:
        body["baseline"] = args.baseline
    if args.salt is not None:
        body["salt"] = args.salt
    if args.predicate is not None:
        try:
            body["predicate"] = json.loads(args.predicate)
        except ValueError as error:
            raise MalformedRequest(f"--predicate is not JSON: {error}") from error
    return body
