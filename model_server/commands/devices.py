"""`devices`: tokens that let devices in, and the devices that they let in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rich.console import Console

from model_server.client import Client
from model_server.commands.show import table

__all__ = ["run_devices"]

Answer = dict[str, Any]


def run_devices(args: argparse.Namespace, action: str, client: Client, console: Console) -> Answer:
    if action == "token add":
        return _add(args, client, console)
    if action == "token list":
        answer: Answer = client.get("/v1/enrolment/tokens")
        _show_tokens(console, answer["tokens"])
        return answer
    if action == "token revoke":
        answer = client.post(f"/v1/enrolment/tokens/{quote(args.token, safe='')}/revoke")
        console.print(f"token {answer['id']} lets nobody in any more; the {answer['used']} devices that used it stay")
        return answer
    if action == "list":
        return _list(args, client, console)
    answer = client.post(f"/v1/enrolment/devices/{quote(args.device, safe='')}/{action}")
    now = "may enrol again, with a token" if action == "reset" else "is revoked: nothing that it signs counts"
    console.print(f"{answer['device']} {now}")
    return answer


def _add(args: argparse.Namespace, client: Client, console: Console) -> Answer:
    asked: dict[str, object] = {"uses": args.uses, "expires_days": args.expires}
    if args.per_hour is not None:
        asked["per_hour"] = args.per_hour
    if args.group is not None:
        asked["group"] = args.group
    answer: Answer = client.post("/v1/enrolment/tokens", asked)
    devices = "one device" if args.uses == 1 else f"{args.uses} devices"
    console.print(f"For {devices}, until {answer['expires'][:16].replace('T', ' ')}. It is shown this once:")
    console.print(answer["token"], soft_wrap=True, markup=False, highlight=False)
    return answer


def _list(args: argparse.Namespace, client: Client, console: Console) -> Answer:
    params = {"after": args.after, "limit": str(args.limit)}
    if args.group is not None:
        params["group"] = args.group
    answer: Answer = client.get("/v1/enrolment/devices", params)
    devices = answer["devices"]
    console.print(
        table(
            "Devices",
            ["device", "state", "group", "token", "enrolled"],
            [(d["device"], d["state"], d["group"] or "–", d["token"], _time(d["enrolled"])) for d in devices],
        )
    )
    if len(devices) == args.limit:
        console.print(f"There may be more: --after {devices[-1]['device']}", markup=False, soft_wrap=True)
    return answer


def _show_tokens(console: Console, tokens: Sequence[Mapping[str, Any]]) -> None:
    console.print(
        table(
            "Enrolment tokens",
            ["token", "state", "used", "an hour", "group", "expires"],
            [
                (
                    token["id"],
                    token["state"],
                    f"{token['used']} of {token['uses']}",
                    "–" if token["per_hour"] is None else str(token["per_hour"]),
                    token["group"] or "–",
                    token["expires"][:10],
                )
                for token in tokens
            ],
        )
    )


def _time(text: str) -> str:
    return text[:16].replace("T", " ")
