"""`python -m devices fleet …`: a simulated fleet against a server; `faults`: a device that is cut off at every point;
`profiles`: real devices."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from devices.fleet import Fleet, FleetOptions, FleetPeriod
from devices.profiles.table import show_profiles
from edge_runtime.errors import EdgeshipError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devices", description="Simulated devices.")
    commands = parser.add_subparsers(dest="command", required=True)
    fleet = commands.add_parser("fleet", help="many real runtimes, each in its own folder, against one server")
    fleet.add_argument("--server", required=True, help="base URL of the model server")
    fleet.add_argument("--root", required=True, type=Path, help="root.json of the server's repository")
    who = fleet.add_mutually_exclusive_group(required=True)
    who.add_argument("--enrolment-token", help="each device makes a key of its own and enrols with this")
    who.add_argument("--token", help="one that all devices share, for a server that still takes it")
    fleet.add_argument("--model", required=True)
    fleet.add_argument("--channel", default="stable")
    fleet.add_argument("--factory", required=True, type=Path, help="bundle that every device starts from")
    fleet.add_argument("--examples", required=True, type=Path, help=".npz of one array an input; first axis: example")
    fleet.add_argument("--state", type=Path, default=Path("state/fleet"), help="folder for the devices' folders")
    fleet.add_argument("--devices", type=_count, default=60)
    fleet.add_argument("--periods", type=_count, default=5, help="check, answer, report: so many times")
    fleet.add_argument("--requests", type=int, default=30, help="requests a device and period")
    fleet.add_argument("--workers", type=int, default=2, help="processes")
    fleet.add_argument("--profile", help="a device profile, or a .toml: its arch, os and RAM become the devices' own")
    fleet.add_argument("--json", action="store_true", help="one JSON object a period on standard output")
    fleet.set_defaults(run=_fleet)
    faults = commands.add_parser("faults", help="cut a device off at every change of its disk, and start it again")
    faults.add_argument("--trials", type=_all_or_count, default=None, metavar="N", help="points to cut at, or all")
    faults.add_argument("--workers", type=_count, help="processes; by default one for each processor")
    faults.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    faults.set_defaults(run=_faults)
    profiles = commands.add_parser("profiles", help="the real devices that are known, and where each number is from")
    profiles.add_argument("names", nargs="*", help="names or .toml files, to see every number with its source")
    profiles.add_argument("--json", action="store_true", help="one JSON object a device on standard output")
    profiles.set_defaults(run=lambda options: show_profiles(options.names, as_json=options.json))
    return parser


def _all_or_count(text: str) -> int | None:
    return None if text == "all" else _count(text)


def _faults(options: argparse.Namespace) -> int:
    from devices.faults.command import show_faults

    return show_faults(options.trials, options.workers, as_json=options.json)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("needs at least 1")
    return value


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except (EdgeshipError, OSError) as e:
        print(f"devices: {e}", file=sys.stderr)
        return 1


def _fleet(options: argparse.Namespace) -> int:
    digest = hashlib.sha256(options.factory.read_bytes()).hexdigest()
    fleet_options = FleetOptions(
        server=options.server,
        root=options.root,
        model=options.model,
        channel=options.channel,
        enrolment_token=options.enrolment_token,
        token=options.token,
        state=options.state,
        factory=options.factory,
        factory_sha256=digest,
        examples=options.examples,
        devices=options.devices,
        requests=options.requests,
        workers=options.workers,
        profile=options.profile,
    )
    if not options.json:
        print(f"{options.devices} devices in {options.state}; those that are there already keep their release")
    with Fleet(fleet_options) as fleet:
        for _ in range(options.periods):
            period = fleet.period()
            if options.json:
                print(json.dumps(dataclasses.asdict(period)), flush=True)
            else:
                _show(period)
    if not any(device.reported for device in period.devices):
        print("devices: no report of the last period reached the server", file=sys.stderr)
        return 1
    return 0


def _show(period: FleetPeriod) -> None:
    running = ", ".join(f"{n} on release {r}" for r, n in sorted(period.releases.items(), key=str))
    outcomes = Counter(device.outcome for device in period.devices)
    counted = ", ".join(f"{outcome} {n}" for outcome, n in outcomes.most_common())
    refused, unanswered = (sum(getattr(d, name) for d in period.devices) for name in ("refused", "unanswered"))
    unheard = sum(not device.reported for device in period.devices)
    print(
        f"period {period.number}: {running}; checks: {counted}; {period.answers} answers, {refused} inputs refused, "
        f"{unanswered} without an answer; {unheard} reports not taken",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
