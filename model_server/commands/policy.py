"""`release revoke`, `set-floor` and `renew`, and what follows them with `policy` for a release's number."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from model_server.client import Client
from model_server.commands.parser import POLICY
from model_server.releases.policy_request import PolicyReview

__all__ = ["is_policy", "run_policy", "show_policy", "show_policy_review"]


def is_policy(args: argparse.Namespace, action: str) -> bool:
    return action in ("revoke", "set-floor", "renew") or getattr(args, "release", None) == POLICY


def run_policy(args: argparse.Namespace, action: str, model: str, client: Client, console: Console) -> dict[str, Any]:
    path = f"/v1/policies/{model}"
    match action:
        case "revoke":
            answer = client.post(path, {"revoke": [args.release], "reason": args.reason})
        case "set-floor":
            answer = client.post(path, {"min_release": args.release, "reason": args.reason})
        case "renew":
            answer = client.post(path, {"reason": args.reason})
        case "withdraw":
            client.delete(path)
            console.print(f"the change of the policy of {model} is withdrawn")
            return {"model": model, "state": "withdrawn"}
        case "publish":
            answer = client.post(f"{path}/publish")
        case _:
            answer = client.get(path)
    show_policy(console, answer)
    return dict(answer)


def show_policy(console: Console, policy: Mapping[str, Any]) -> None:
    console.print(f"{policy['model']}: {_words(policy)}. Signed until {policy['expires'][:10]}")
    pending = policy["pending"]
    if pending is not None:
        people = ", ".join(signature["person"] for signature in pending["signatures"]) or "nobody"
        console.print(
            f"proposed: {_words(pending)}, until {pending['expires'][:10]}; signed by {people} "
            f"({policy['threshold']} needed)"
        )
    for plan in policy["forbids"]:
        console.print(
            f"{plan['release']} is the {plan['named_as']} of {plan['rollout']} on {plan['channel']}, which is "
            f"{plan['state']}: {_then(plan)}"
        )


def show_policy_review(console: Console, review: PolicyReview) -> None:
    """The difference that a signature would approve."""
    changes = []
    if review.revoked:
        changes.append(f"revoked for ever: {', '.join(map(str, review.revoked))}")
    if review.floor_after != review.floor_before:
        changes.append(f"the floor rises from {review.floor_before} to {review.floor_after}")
    console.print(f"{review.model}: {'; '.join(changes) or 'nothing changes but the expiry'}")
    console.print(
        f"Metadata version {review.metadata_version}, valid until {review.expires:%Y-%m-%d}. {review.kept} published "
        "files stay as they are."
    )


def _words(policy: Mapping[str, Any]) -> str:
    revoked = ", ".join(map(str, policy["revoked"])) or "none"
    return f"floor {policy['min_release']}, revoked {revoked}"


def _then(plan: Mapping[str, Any]) -> str:
    if plan["named_as"] == "baseline":
        return "devices outside the rollout have nothing to run, and it cannot be rolled back"
    if plan["state"] == "running":
        return "the rollout is halted once the policy is published"
    return "its devices go back to what they have, or to the fallback chain, until another release is rolled out"
