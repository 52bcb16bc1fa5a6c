"""The command line's grammar."""

from __future__ import annotations

import argparse
from dataclasses import fields
from datetime import date
from pathlib import Path

from model_server.commands.keys_parser import add_keys_parser
from model_server.releases.staging import DEFAULT_CEILING
from model_server.rollouts.guardrails import Limits
from model_server.signing.uris import key_place

__all__ = ["POLICY", "build_parser", "limit_option"]

POLICY = "policy"  # stands where a release's number does

# Limits that people write as shares or durations; the others are plain numbers.
_HELP = {
    "install_failures": "share of devices that may fail to install",
    "min_devices": "devices that must show a fault before it counts",
    "silent": "share of devices that may be silent past the deadline",
    "deadline_s": "seconds after which silence counts",
    "errors": "share of the candidate's requests that may fail",
    "errors_ratio": "and that share over the holdback's",
    "fallbacks": "share of requests that may need the fallback chain",
    "fallbacks_ratio": "and that share over the holdback's",
    "refused": "share of inputs that may be refused",
    "refused_ratio": "and that share over the holdback's",
    "latency_ratio": "the candidate's P95 on the device over the holdback's",
    "latency_floor_us": "a P95 difference below this is none, in microseconds",
    "min_requests": "requests of each arm before a stage passes",
    "min_reports": "reports of the candidate before a stage passes",
    "adopted_share": "share of able devices on the candidate before a stage passes",
    "soak_s": "seconds that a stage lasts at least",
}


def limit_option(name: str) -> str:
    return "--" + name.replace("_", "-")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgeship-server", description="Sign models, roll them out to a fleet, and stop the bad ones."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _local(commands)
    add_keys_parser(commands)
    _release(commands)
    _rollout(commands)
    _drift(commands)
    status = _remote(commands.add_parser("status", help="roles, releases and rollouts of a server"))
    status.set_defaults(run="status")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: use 0 to 65535")
    return port


def _local(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _json(
        commands.add_parser(
            "init",
            help="make a server's folder: keys, first metadata, database",
            description="Make a server's folder: keys, first metadata, database. At a terminal it asks for the models "
            "and people that are left out, and shows what it will make.",
        )
    )
    init.add_argument("directory", type=Path, metavar="DIR")
    init.add_argument("--model", action="append", default=[], help="a model to serve; repeat for more")
    init.add_argument("--person", action="append", default=[], help="who holds keys; at least three, as in alice")
    init.add_argument(
        "--passphrase-file", type=Path, help="12 characters or more for the people's keys; asked for if left out"
    )
    init.add_argument(
        "--database", metavar="URL", help="an empty PostgreSQL database, postgresql://user@host/name; default: SQLite"
    )
    init.set_defaults(run="init")

    serve = commands.add_parser("serve", help="serve a folder that init made")
    serve.add_argument("directory", type=Path, metavar="DIR")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8080, help="0 for a free one")
    serve.add_argument("--ready-file", type=Path, help="written with the address once requests are accepted")
    serve.set_defaults(run="serve")


def _release(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    release = commands.add_parser("release", help="stage, sign and publish releases").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    stage = _remote(release.add_parser("stage", help="upload a bundle; the server checks it and writes the proposal"))
    stage.add_argument("bundle", type=Path, metavar="BUNDLE")
    stage.add_argument("--ceiling", default=DEFAULT_CEILING, help="largest share by age (default: %(default)s)")
    stage.set_defaults(run="release stage")
    sign = _remote(
        _numbered(release.add_parser("sign", help="review a proposal against your own bundle and sign it"), policy=True)
    )
    sign.add_argument(
        "--key", type=key_place, required=True, metavar="FILE|URI", help="your releases key, as in hsm:2?label=alice"
    )
    sign.add_argument("--passphrase-file", type=Path, help="opens the key file; asked for if left out")
    sign.add_argument("--pin-file", type=Path, help="the PIN of a key on a token; asked for if left out")
    sign.add_argument("--bundle", type=Path, help="your own copy of the bundle; none for a policy")
    sign.add_argument("--root", type=Path, help="the root you trust (default: root.json beside the key)")
    sign.add_argument("--trust", type=Path, help="remembers what was verified (default: beside the key)")
    sign.add_argument("--yes", action="store_true", help="sign without asking; needed where there is no terminal")
    sign.add_argument("--accept-expired", action="store_true", help="the role has expired, and is signed again by this")
    sign.set_defaults(run="release sign")
    for action, text in (
        ("publish", "put what enough people signed in front of devices"),
        ("show", "one release, or the policy: files, signatures, what waits"),
        ("withdraw", "forget a release, or a change of the policy, that is not published"),
    ):
        command = _remote(_numbered(release.add_parser(action, help=text), policy=True))
        command.set_defaults(run=f"release {action}")
    revoke = _remote(_numbered(release.add_parser("revoke", help="propose that a release must never run again")))
    floor = _remote(_numbered(release.add_parser("set-floor", help="propose the lowest release that may run")))
    renew = _remote(release.add_parser("renew", help="propose the same releases again, before the role expires"))
    renew.add_argument("model", metavar="MODEL")
    for command, action in ((revoke, "revoke"), (floor, "set-floor"), (renew, "renew")):
        command.add_argument("--reason", default="", help="kept in the audit log")
        command.set_defaults(run=f"release {action}")
    listing = _remote(release.add_parser("list", help="the releases of a model"))
    listing.add_argument("model", metavar="MODEL")
    listing.set_defaults(run="release list")


def _rollout(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rollout = commands.add_parser("rollout", help="move a channel from one release to the next").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    start = _remote(_channel(_numbered(rollout.add_parser("start", help="start a rollout"))))
    start.add_argument("--stages", default="1%,10%,50%,all", help="counts, percentages, 'all' (default: %(default)s)")
    start.add_argument("--holdback", default="5%", help="control group until completion (default: %(default)s)")
    start.add_argument("--on-breach", choices=("halt", "rollback"), default="halt")
    start.add_argument("--growth", choices=("auto", "manual"), default="manual")
    start.add_argument("--baseline", type=int, help="default: the channel's last completed candidate")
    start.add_argument("--predicate", help='JSON over device attributes, as in \'{"eq": ["arch", "arm64"]}\'')
    start.add_argument("--salt", help="default: random; fix it to repeat a simulation")
    limits = start.add_argument_group("guardrails")
    for limit in fields(Limits):
        limits.add_argument(
            limit_option(limit.name), type=float, help=f"{_HELP[limit.name]} (default: {limit.default:g})"
        )
    start.set_defaults(run="rollout start")
    for action, text in (
        ("status", "plan, stages, events and counters"),
        ("advance", "approve the next stage"),
        ("halt", "adopters stay, nobody joins"),
        ("rollback", "adopters return to the baseline"),
        ("complete", "everybody, no holdback"),
        ("disable", "no local inference of this model on this channel"),
    ):
        command = _remote(_channel(rollout.add_parser(action, help=text)))
        command.add_argument("model", metavar="MODEL")
        command.set_defaults(run=f"rollout {action}")


def _drift(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    drift = commands.add_parser("drift", help="whether the fleet's data has moved from its baseline").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    show = _remote(drift.add_parser("show", help="the verdict, its evidence by day, and what cannot be seen"))
    show.add_argument("model", metavar="MODEL")
    show.set_defaults(run="drift show")
    approve = _remote(
        drift.add_parser("approve", help="freeze closed days as the baseline that drift is measured from")
    )
    approve.add_argument("model", metavar="MODEL")
    approve.add_argument("--from", dest="first", type=_day, required=True, metavar="DAY", help="as in 2026-03-02")
    approve.add_argument("--to", dest="last", type=_day, required=True, metavar="DAY", help="the last day, included")
    approve.add_argument("--by", required=True, metavar="NAME", help="who vouches that the fleet was healthy")
    approve.set_defaults(run="drift approve")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: write it as in 2026-03-02") from error


def _numbered(parser: argparse.ArgumentParser, *, policy: bool = False) -> argparse.ArgumentParser:
    parser.add_argument("model", metavar="MODEL")
    if policy:
        parser.add_argument("release", type=_release_or_policy, metavar="N", help=f"a release, or {POLICY!r}")
    else:
        parser.add_argument("release", type=int, metavar="N")
    return parser


def _release_or_policy(text: str) -> int | str:
    if text == POLICY:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither the number of a release nor {POLICY!r}") from error


def _channel(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--channel", default="stable")
    return parser


def _remote(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--server", help="address (or EDGESHIP_SERVER)")
    parser.add_argument("--api-key", help="admin API key (or EDGESHIP_API_KEY)")
    parser.add_argument("--credentials", type=Path, help="the credentials.json that init wrote, instead of --api-key")
    return _json(parser)


def _json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
