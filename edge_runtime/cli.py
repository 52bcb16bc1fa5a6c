"""``edgeship-device``: enrol, look at a device's state folder, predict with it, check for an update.

Exit status: 0 done; 1 it failed, with the reason on standard error; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ConfigurationError, EdgeshipError, NoModel, Outcome
from edge_runtime.hybrid.policy import Mode

if TYPE_CHECKING:
    from edge_runtime.prediction import Prediction
    from edge_runtime.runtime import EdgeRuntime
    from edge_runtime.update.conditions import UpdateRules, Window

__all__ = ["main"]

# A check that ended so did what the plan asks for, had nothing to do, or obeys the rules that it was given.
_FINE = frozenset(
    {
        Outcome.UNCHANGED,
        Outcome.INSTALLED,
        Outcome.COMMITTED,
        Outcome.RETURNED,
        Outcome.DISABLED,
        Outcome.NO_PLAN,
        Outcome.DEFERRED_METERED,
        Outcome.DEFERRED_WINDOW,
        Outcome.DEFERRED_BATTERY,
        Outcome.DEFERRED_BANDWIDTH,
        Outcome.DEFERRED_SERVER,
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a label may hold what this terminal cannot show
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output had enough; nor can it be flushed when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EdgeshipError as error:
        print(f"edgeship-device: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeship-device", description="One model on this device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="answer examples from an .npz file")
    _model_options(predict)
    predict.add_argument("--inputs", type=Path, required=True, help=".npz of one array an input of the model")
    predict.add_argument("--many", action="store_true", help="the arrays' first axis is the example")
    predict.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.PREFER_ON_DEVICE.value)
    predict.add_argument("--cloud", help="base URL of an Open Inference Protocol endpoint; by default --server")
    predict.set_defaults(run=_predict)

    update = commands.add_parser("update", help="check for an update now, and report to the server")
    _model_options(update)
    _rule_options(update)
    update.set_defaults(run=_update)

    enrol = commands.add_parser("enrol", help="make this device's key, and enrol it at the server")
    enrol.add_argument("state", type=Path, help="the state folder")
    enrol.add_argument("--server", required=True, help="base URL of the server")
    enrol.add_argument("--root", type=Path, required=True, help="root.json that the server is trusted by")
    enrol.add_argument("--token-file", type=Path, required=True, help="file that holds an enrolment token")
    enrol.add_argument("--json", action="store_true", help="print one JSON object")
    enrol.set_defaults(run=_enrol)

    install = commands.add_parser("install", help="install a release from a bundle that a server exported")
    _model_options(install, bundle=True)
    install.set_defaults(run=_install)

    status = commands.add_parser("status", help="show what is installed in a state folder")
    status.add_argument("state", type=Path, help="the state folder")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_status)

    _tuf_options(commands.add_parser("tuf", help="the plain TUF client, which conformance tests drive"))
    return parser


def _tuf_options(tuf: argparse.ArgumentParser) -> None:
    """The command line of the public TUF conformance suite."""
    tuf.add_argument("--metadata-dir", type=Path, required=True, help="folder of trusted metadata")
    tuf.add_argument("--metadata-url", help="where the repository's metadata is")
    tuf.add_argument("--target-name", action="append", default=[], help="a target to download; repeat for more")
    tuf.add_argument("--target-base-url", help="where the repository's targets are")
    tuf.add_argument("--target-dir", type=Path, help="folder that targets are downloaded to")
    actions = tuf.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("init", help="trust this root").add_argument("root", type=Path, metavar="ROOT")
    actions.add_parser("refresh", help="fetch and verify the top-level metadata")
    actions.add_parser("download", help="verify and download targets")
    tuf.set_defaults(run=_tuf)


def _model_options(parser: argparse.ArgumentParser, *, bundle: bool = False) -> None:
    parser.add_argument("state", type=Path, help="the state folder")
    if bundle:
        parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--model", required=True)
    parser.add_argument("--factory", type=Path, help="bundle to install where the folder has no release")
    parser.add_argument("--sha256", help="the factory bundle's sha256, in hex")
    parser.add_argument(
        "--engine",
        action="append",
        choices=["onnx", "tflite"],
        help="engines to choose from when a release is installed, best first",
    )
    parser.add_argument("--server", help="base URL of the server")
    parser.add_argument("--root", type=Path, help="root.json that the server, and what it signed, is trusted by")
    parser.add_argument("--channel", default="stable")
    parser.add_argument(
        "--token-file", type=Path, help="file that holds a token of the whole fleet; none for a device that enrolled"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _rule_options(parser: argparse.ArgumentParser) -> None:
    """When to download: the defaults are those of `UpdateRules`."""
    rules = parser.add_argument_group("rules", "when a release may be downloaded and tried; checks are always made")
    rules.add_argument(
        "--metered",
        choices=["allow", "checks_only", "never"],
        help="on a metered network: download, only check (the default), or not even check",
    )
    rules.add_argument(
        "--metered-bytes", type=int, metavar="N", help="download up to N bytes a check on a metered network"
    )
    rules.add_argument(
        "--window",
        action="append",
        type=_window,
        metavar="WINDOW",
        help="maintenance window, as in 02:00-05:00 or 'sat,sun 22:00-06:00'; repeat for more",
    )
    rules.add_argument(
        "--time-zone", metavar="ZONE", help="of the windows, as in Europe/Berlin; by default the system's"
    )
    rules.add_argument(
        "--minimum-battery", type=float, metavar="SHARE", help="0 to 1, unless the device has power (default 0.2)"
    )
    rules.add_argument("--bytes-per-s", type=int, metavar="N", help="download no faster than this")


def _window(text: str) -> Window:
    from edge_runtime import Window

    try:
        return Window.parse(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _rules(options: argparse.Namespace) -> UpdateRules:
    from edge_runtime import UpdateRules

    given = {
        "metered": options.metered,
        "metered_bytes": options.metered_bytes,
        "windows": options.window,
        "time_zone": options.time_zone,
        "minimum_battery": options.minimum_battery,
        "bytes_per_s": options.bytes_per_s,
    }
    return UpdateRules(**{name: value for name, value in given.items() if value is not None})


def _open(options: argparse.Namespace, **more: Any) -> EdgeRuntime:
    from edge_runtime import EdgeRuntime, Enrolment, Factory
    from edge_runtime.enrolment.key import has_key

    if (options.factory is None) != (options.sha256 is None):
        raise ConfigurationError("--factory and --sha256 go together")
    token = None if options.token_file is None else _read(options.token_file).strip()
    if options.server is None and options.run is _update:
        raise ConfigurationError(
            "update needs --server, and --root with the root metadata that the server is trusted by"
        )
    if options.server is not None and options.root is None:
        raise ConfigurationError("--server needs --root, the root metadata (root.json) that the server is trusted by")
    return EdgeRuntime.open(
        options.state,
        model=options.model,
        root=options.root,
        server=options.server,
        channel=options.channel,
        factory=None if options.factory is None else Factory(options.factory, sha256=options.sha256),
        token=token,
        enrolment=Enrolment() if token is None and options.server and has_key(options.state) else None,
        engines=tuple(options.engine or ("onnx", "tflite")),
        background=False,
        **more,
    )


def _predict(options: argparse.Namespace) -> int:
    from edge_runtime import RoutingPolicy

    examples = _examples(options.inputs, options.many)
    mode = Mode(options.mode)
    if options.cloud is None and options.server is None and mode in (Mode.PREFER_IN_CLOUD, Mode.ONLY_IN_CLOUD):
        raise ConfigurationError(f"--mode {mode.value} needs --cloud or --server")
    try:
        with _open(options, cloud=options.cloud, policy=RoutingPolicy(mode=mode)) as runtime:
            predictions = runtime.predict_batch(examples) if options.many else [runtime.predict(examples[0])]
    except NoModel as error:
        instead = "give --factory and --sha256" if options.factory is None else "give another bundle with --factory"
        raise NoModel(
            f"{options.state} holds no release of {options.model} that can be used: {instead}, "
            "or run `edgeship-device update` with --server and --root"
        ) from error
    if options.json:
        print(json.dumps({"predictions": [_shown(prediction) for prediction in predictions]}))
    else:
        for prediction in predictions:
            confidence = "" if prediction.confidence is None else f"{prediction.confidence:.3f}"
            mark = " (degraded)" if prediction.degraded else ""
            name = prediction.label or next(iter(prediction.output), "")
            print(f"{name}\t{confidence}\t{prediction.source.value}\t{prediction.reason.value}{mark}")
    return 0


def _update(options: argparse.Namespace) -> int:
    with _open(options, updates=_rules(options)) as runtime:
        result = runtime.update()
        reported = runtime.report()
        running = runtime.release
        stats = runtime.stats()
    problem, clock = stats["report_error"], stats["clock"]
    fine = result.outcome in _FINE
    if options.json:
        print(
            json.dumps(
                {
                    "outcome": result.outcome.value,
                    "release": result.release,
                    "detail": result.detail,
                    "running": running,
                    "requests": result.requests,
                    "bytes": result.bytes,
                    "reported": reported,
                    "report_error": problem,
                    "clock": clock,
                }
            )
        )
    else:
        text = f"{result.outcome.value}: {result.detail}"
        print(text if fine else f"edgeship-device: {text}", file=sys.stdout if fine else sys.stderr)
        print(f"running: {'nothing' if running is None else f'release {running}'}")
        if clock is not None and result.outcome is not Outcome.CLOCK_WRONG:
            print(f"edgeship-device: {clock['detail']}", file=sys.stderr)
        if not reported:
            why = problem or "it asked to wait; the report is kept"
            print(f"edgeship-device: the server did not take the report: {why}", file=sys.stderr)
    return 0 if fine else 1


def _enrol(options: argparse.Namespace) -> int:
    from edge_runtime.enrolment.command import enrol

    try:
        root = options.root.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the root metadata {options.root}: {error.strerror}") from error
    record = enrol(options.state, options.server, root, _read(options.token_file).strip())
    if options.json:
        print(json.dumps({"device": record.device, "state": record.state, "detail": record.detail}))
    elif record.state == "enrolled":
        print(f"device {record.device} is enrolled at {record.server}")
    else:
        print(f"edgeship-device: device {record.device} is not enrolled: {record.detail}", file=sys.stderr)
    return 0 if record.state == "enrolled" else 1


def _install(options: argparse.Namespace) -> int:
    if options.root is None:
        raise ConfigurationError("install needs --root, the root metadata (root.json) that the bundle is trusted by")
    with _open(options) as runtime:
        result = runtime.install_bundle(options.bundle)
        running = runtime.release
    fine = result.outcome in _FINE
    if options.json:
        shown = {"outcome": result.outcome.value, "release": result.release, "detail": result.detail}
        print(json.dumps({**shown, "running": running}))
    else:
        text = f"{result.outcome.value}: {result.detail}"
        print(text if fine else f"edgeship-device: {text}", file=sys.stdout if fine else sys.stderr)
        print(f"running: {'nothing' if running is None else f'release {running}'}")
    return 0 if fine else 1


def _status(options: argparse.Namespace) -> int:
    from edge_runtime.disk import RealDisk
    from edge_runtime.enrolment.record import load_record
    from edge_runtime.outcome_spool import read_standing
    from edge_runtime.store import read_slots

    if not (options.state / "lock").is_file():  # made when a runtime first opens the folder
        raise ConfigurationError(f"{options.state} is not a state folder")
    body = read_slots(options.state).to_body()
    standing = read_standing(RealDisk(), options.state)
    body["standing"] = [
        {"outcome": event.outcome.value, "release": event.release, "detail": event.detail} for event in standing
    ]
    enrolled = load_record(RealDisk(), options.state)
    body["enrolment"] = (
        None
        if enrolled is None
        else {"device": enrolled.device, "server": enrolled.server, "state": enrolled.state, "detail": enrolled.detail}
    )
    if options.json:
        print(json.dumps(body))
        return 0
    if enrolled is not None:
        why = f": {enrolled.detail}" if enrolled.detail else ""
        print(f"device:   {enrolled.device}, {enrolled.state} at {enrolled.server}{why}")
    for name in ("active", "previous", "staged"):
        slot: Any = body[name]
        print(f"{name + ':':10}{'–' if slot is None else 'release {release}, {artifact}'.format(**slot)}")
    trial: Any = body["trial"]
    if trial is not None:
        print(f"trial:    {trial['good']} good predictions, {trial['unclean']} unclean starts in a row")
    for event in standing:
        print(f"last check: {event.outcome.value}: {event.detail}")
    if body["disabled"]:
        print("the plan switches local inference off")
    for denied in body["denied"]:  # type: ignore[attr-defined]
        why = f"it failed here in attempt {denied['attempt']} of rollout {denied['rollout'] or '–'}"
        print(f"denied:   release {denied['release']}: {why}; another attempt or rollout may bring it again")
    return 0


def _tuf(options: argparse.Namespace) -> int:
    from edge_runtime.update import plain

    folder: Path = options.metadata_dir
    if options.action == "init":
        plain.init(folder, options.root)
        return 0
    if options.metadata_url is None:
        raise ConfigurationError(f"tuf {options.action} needs --metadata-url")
    if options.action == "refresh":
        plain.refresh(folder, options.metadata_url)
        return 0
    if not options.target_name or options.target_base_url is None or options.target_dir is None:
        raise ConfigurationError("tuf download needs --target-name, --target-base-url and --target-dir")
    plain.download_targets(
        folder, options.metadata_url, options.target_name, options.target_base_url, options.target_dir
    )
    return 0


def _examples(path: Path, many: bool) -> list[dict[str, Any]]:
    from edge_runtime.npz import read_npz

    arrays = read_npz(path)
    if not many:
        return [arrays]
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ConfigurationError(
            f"the arrays of {path} need one first axis of the same length, with an example or more"
        )
    return [{name: array[i] for name, array in arrays.items()} for i in range(lengths.pop())]


def _shown(prediction: Prediction) -> dict[str, Any]:
    return {
        "output": {name: array.tolist() for name, array in prediction.output.items()},
        "label": prediction.label,
        "index": prediction.index,
        "confidence": prediction.confidence,
        "source": prediction.source.value,
        "reason": prediction.reason.value,
        "release": prediction.release,
        "cloud": prediction.cloud,
        "degraded": prediction.degraded,
        "latency_us": prediction.latency_us,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
