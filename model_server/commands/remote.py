"""`release`, `rollout`, `drift`, `devices` and `status`: what a release manager does to a server over HTTP."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_runtime.bundle import check_channel, check_model
from model_server.client import Client
from model_server.commands.devices import run_devices
from model_server.commands.drift import show_approval, show_drift
from model_server.commands.policy import is_policy, run_policy
from model_server.commands.show import show_release, show_releases, show_review, show_rollout, show_status
from model_server.commands.trust import read_root
from model_server.errors import MalformedRequest, SettingsError
from model_server.releases.signing import sign_release
from model_server.releases.signing_request import Review
from model_server.rollouts.guardrails import Limits

__all__ = ["run_remote"]

Answer = dict[str, Any]


def run_remote(
    args: argparse.Namespace,
    client: Client,
    console: Console,
    passphrase: Callable[[Path | None], bytes],
    confirm: Callable[[str], bool],
) -> Answer:
    """Run one command; its answer is what ``--json`` prints. Tables go to ``console``."""
    group, _, action = args.run.partition(" ")
    if group == "status":
        answer: Answer = client.get("/v1/status")
        show_status(console, answer)
        return answer
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
    passphrase: Callable[[Path | None], bytes],
    confirm: Callable[[str], bool],
) -> Answer:
    if is_policy(args, action):
        return run_policy(args, action, model, client, console, passphrase, confirm)
    if action == "stage":
        if not args.bundle.is_file():
            raise SettingsError(f"there is no bundle {args.bundle}")
        answer: Answer = client.upload("/v1/releases", args.bundle, {"ceiling": args.ceiling})
        show_release(console, answer)
        return answer
    if action == "list":
        answer = client.get(f"/v1/releases/{model}")
        show_releases(console, answer["releases"])
        return answer
    path = f"/v1/releases/{model}/{args.release}"
    if action == "withdraw":
        client.delete(path)
        console.print(f"{model} {args.release} is withdrawn")
        return {"model": model, "release": args.release, "state": "withdrawn"}
    if action == "sign":
        return _sign(args, model, client, console, passphrase, confirm)
    answer = client.post(f"{path}/publish") if action == "publish" else client.get(path)
    show_release(console, answer)
    return answer


def _sign(
    args: argparse.Namespace,
    model: str,
    client: Client,
    console: Console,
    passphrase: Callable[[Path | None], bytes],
    confirm: Callable[[str], bool],
) -> Answer:
    if args.bundle is None:
        raise SettingsError("give your own copy of the bundle with --bundle: it is what the proposal is compared with")

    def reviewed(review: Review) -> bool:
        show_review(console, review)
        return args.yes or confirm(f"Sign {model} {review.release}?")

    signed = sign_release(
        client,
        model,
        args.release,
        key=args.key,
        passphrase=passphrase(args.passphrase_file),
        bundle=args.bundle,
        root=read_root(args),
        trust=args.trust or args.key.with_suffix(".trust"),
        accept_expired=args.accept_expired,
        confirm=reviewed,
    )
    console.print(f"signed by {signed.person}")
    show_release(console, signed.release)
    review = asdict(signed.review) | {"expires": signed.review.expires.isoformat()}
    return {"person": signed.person, "review": review, "release": signed.release}


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
