"""The command line's grammar."""

from __future__ import annotations

import argparse
from dataclasses import fields
from datetime import date
from pathlib import Path

from model_server.commands.keys_parser import add_keys_parser
from model_server.commands.people_parser import add_people_parser
from model_server.quantities import DEFAULT_CEILING
from model_server.rollouts.guardrails import Limits
from model_server.signing.places import key_place

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
    add_people_parser(commands, _remote, _json)
    _release(commands)
    _jobs(commands)
    _rollout(commands)
    _drift(commands)
    _devices(commands)
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
    init.add_argument("--admin", metavar="NAME", help="whose API key is made (default: the first --person)")
    init.add_argument(
        "--passphrase-file", type=Path, help="12 characters or more for the people's keys; asked for if left out"
    )
    init.add_argument(
        "--database", metavar="URL", help="an empty PostgreSQL database, postgresql://user@host/name; default: SQLite"
    )
    init.add_argument(
        "--objects",
        metavar="PLACE",
        help="for published files and blobs: a shared folder, or s3://bucket/prefix; default: DIR",
    )
    init.add_argument("--objects-endpoint", metavar="URL", default="", help="of an object store that is not AWS")
    init.add_argument("--objects-region", metavar="NAME", default="")
    init.set_defaults(run="init")

    export = _json(
        commands.add_parser("export", help="write what devices fetch as files that any web server or CDN can serve")
    )
    export.add_argument("out", type=Path, metavar="DIR", help="made if need be; a later export adds what is new")
    export.add_argument("--dir", dest="directory", type=Path, required=True, metavar="DIR", help="the server's folder")
    export.set_defaults(run="export")

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
    stage = _remote(
        release.add_parser("stage", help="upload a bundle; a job of the server checks it and writes the proposal")
    )
    stage.add_argument("bundle", type=Path, metavar="BUNDLE")
    stage.add_argument("--ceiling", default=DEFAULT_CEILING, help="largest share by age (default: %(default)s)")
    stage.add_argument(
        "--allow-interface-change",
        action="store_true",
        help="inputs or outputs may differ from the newest release's; the signers are told",
    )
    stage.add_argument("--no-wait", action="store_true", help="do not follow the job that stages it to its end")
    stage.set_defaults(run="release stage")
    fetch = _remote(
        _numbered(
            release.add_parser("fetch", help="put a proposal into a file, for signers without a network"), policy=True
        )
    )
    fetch.add_argument("--out", type=Path, required=True, metavar="FILE.proposal")
    fetch.set_defaults(run="release fetch")
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
    sign.add_argument("--proposal", type=Path, metavar="FILE", help="what `release fetch` wrote; no network is used")
    sign.add_argument("--out", type=Path, metavar="FILE", help="where the signed proposal goes (default: into FILE)")
    sign.set_defaults(run="release sign")
    submit = _remote(release.add_parser("submit", help="send the signatures that files hold"))
    submit.add_argument("proposals", type=Path, nargs="+", metavar="FILE.proposal", help="copies of one are merged")
    submit.set_defaults(run="release submit")
    for action, text in (
        ("publish", "put what enough people signed in front of devices"),
        ("show", "one release, or the policy: files, signatures, what waits"),
        ("withdraw", "forget a release, or a change of the policy, that is not published"),
    ):
        command = _remote(_numbered(release.add_parser(action, help=text), policy=True))
        command.set_defaults(run=f"release {action}")
    export = _remote(
        _numbered(release.add_parser("export", help="write a published release as a bundle that verifies offline"))
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE.bundle")
    export.set_defaults(run="release export")
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


def _jobs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    jobs = commands.add_parser("jobs", help="uploads that are staged, or were").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    listing = _remote(jobs.add_parser("list", help="the newest first, kept for 30 days"))
    listing.set_defaults(run="jobs list")
    show = _remote(jobs.add_parser("show", help="where a job is, or how it ended"))
    show.add_argument("job", metavar="ID")
    show.add_argument("--wait", action="store_true", help="follow it to its end; exit status 1 if it fails")
    show.set_defaults(run="jobs show")
    cancel = _remote(jobs.add_parser("cancel", help="end a job before its release is staged"))
    cancel.add_argument("job", metavar="ID")
    cancel.set_defaults(run="jobs cancel")


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


def _devices(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    devices = commands.add_parser("devices", help="who is let into the fleet").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    token = devices.add_parser("token", help="tokens that let devices in").add_subparsers(
        dest="token_action", required=True, metavar="ACTION"
    )
    add = _remote(token.add_parser("add", help="make one; it is shown once"))
    add.add_argument("--uses", type=int, default=1, metavar="N", help="devices that it lets in (default: one)")
    add.add_argument("--expires", type=float, required=True, metavar="DAYS", help="and for how long")
    add.add_argument("--per-hour", type=int, metavar="N", help="and how many within an hour; default: no limit")
    add.add_argument("--group", metavar="NAME", help="what these devices are listed by")
    add.set_defaults(run="devices token add")
    listing = _remote(token.add_parser("list", help="every token, its limits and how often it was used"))
    listing.set_defaults(run="devices token list")
    revoke = _remote(token.add_parser("revoke", help="let nobody in by it any more; devices that it let in stay"))
    revoke.add_argument("token", metavar="TOKEN", help="as in the list, not the secret")
    revoke.set_defaults(run="devices token revoke")
    shown = _remote(devices.add_parser("list", help="enrolled devices, page by page"))
    shown.add_argument("--after", default="", metavar="DEVICE", help="the last one of the page before")
    shown.add_argument("--limit", type=int, default=100, metavar="N", help="devices a page (default: %(default)s)")
    shown.add_argument("--group", metavar="NAME", help="of this group only")
    shown.set_defaults(run="devices list")
    for action, text in (
        ("revoke", "take nothing from a device any more, from now on"),
        ("reset", "forget a device's key, so that it can enrol again with a token"),
    ):
        command = _remote(devices.add_parser(action, help=text))
        command.add_argument("device", metavar="DEVICE")
        command.set_defaults(run=f"devices {action}")


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
    parser.add_argument("--api-key", help="your API key (or EDGESHIP_API_KEY, which no list of processes shows)")
    parser.add_argument("--credentials", type=Path, help="a file with a key, of login or init, instead of --api-key")
    return _json(parser)


def _json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
