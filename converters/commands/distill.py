"""``edgeship-convert distill``: a small student from any teacher, beside the same student from labels alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.commands.console import number, progress, table, warn

if TYPE_CHECKING:
    import numpy as np

    from converters.distilling import Budget, DistillingReport, Student

__all__ = ["add", "run"]

STUDENT_FILE, REPORT_FILE, PAGE_FILE = OURS = ("student.keras", "distill.json", "distill.html")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "distill",
        help="train a small student from a teacher, over several seeds",
        description="Train a small student from a teacher over several seeds, beside the same student from labels "
        "alone, and say whether it paid. Writes OUT/student.keras, OUT/distill.json and OUT/distill.html, or nothing.",
    )
    parser.add_argument(
        "teacher", help="any source of run: .keras, SavedModel, .onnx, .pt2, .tflite, .pkl (--trust-pickle), mlflow:"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--student", type=Path, help=".keras file, trained or not: its weights are drawn anew")
    which.add_argument("--family", choices=("auto", "mlp", "conv1d", "conv2d"), help="pick one by a budget")
    parser.add_argument("--max-parameters", type=int, help="budget for --family")
    parser.add_argument("--max-latency-ms", type=float, help="budget for --family, measured here without --profile")
    parser.add_argument("--profile", help="device that the latency is estimated for: a name or a .toml file")
    parser.add_argument("--training", required=True, help=".npz, with label or target, or without")
    parser.add_argument("--pool", help=".npz of more rows that only the teacher labels")
    parser.add_argument("--validation", help="labelled .npz that chooses (default: a fifth of --training)")
    parser.add_argument("--evaluation", required=True, help=".npz, used once: what is reported")
    parser.add_argument("--seeds", type=_count, default=5, help="how many (default: 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=4.0, help="softens the teacher's answers (default: 4)")
    parser.add_argument("--alpha", type=float, default=0.3, help="weight of the labels, 0 to 1 (default: 0.3)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over all rows, pool included (default: 20)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--first-axis", default="batch", help="as in run")
    parser.add_argument("--trust-pickle", action="store_true", help="load a pickled teacher, which can run any code")
    parser.add_argument("--out", required=True, type=Path, help="folder to write, whole or not at all")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it holds anything")
    parser.add_argument("--json", action="store_true", help="print distill.json instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, whether distilling paid or not: the report says which."""
    from converters.data import load_dataset
    from converters.distilling import Settings, distil_over_seeds, report_dict
    from converters.distilling.page import page
    from converters.output import refuse_to_replace, written_whole
    from converters.sources.opening import open_source

    refuse_to_replace(arguments.out, overwrite=arguments.overwrite, ours=OURS)
    student, budget = _student(arguments)
    optional = {
        name: load_dataset(getattr(arguments, name)) for name in ("pool", "validation") if getattr(arguments, name)
    }
    training, evaluation = load_dataset(arguments.training), load_dataset(arguments.evaluation)
    teacher = open_source(
        arguments.teacher, trust_pickle=arguments.trust_pickle, name=None, first_axis=arguments.first_axis
    )
    with progress(quiet=arguments.json) as say:
        outcome = distil_over_seeds(
            teacher,
            student,
            training,
            evaluation=evaluation,
            seeds=range(arguments.first_seed, arguments.first_seed + arguments.seeds),
            settings=Settings(
                temperature=arguments.temperature,
                alpha=arguments.alpha,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
            ),
            latency=None if budget is None or budget.max_latency_ms is None else budget.latency,
            say=say,
            warn=warn,
            **optional,
        )
    report = outcome.report
    with written_whole(arguments.out, overwrite=arguments.overwrite, ours=OURS) as folder:
        outcome.model.save(folder / STUDENT_FILE)
        (folder / REPORT_FILE).write_text(json.dumps(report_dict(report), indent=1) + "\n", encoding="utf-8")
        (folder / PAGE_FILE).write_text(page(report), encoding="utf-8")
    if arguments.json:
        print(json.dumps(report_dict(report), indent=1))
    else:
        _show(report, arguments.out)
    return 0


def _student(arguments: argparse.Namespace) -> tuple[Student | Callable[..., Student], Budget | None]:
    """What was asked for, checked before anything heavy is loaded where that can be."""
    from converters.distilling import Budget, choose_student, given_student
    from converters.errors import InvalidRequest
    from devices.profiles import load_profile

    limits = {"max_parameters": arguments.max_parameters, "max_latency_ms": arguments.max_latency_ms}
    if arguments.student is not None:
        given = [
            f"--{name.replace('_', '-')}" for name, value in {**limits, "profile": arguments.profile}.items() if value
        ]
        if given:
            raise InvalidRequest(f"{', '.join(given)}: a budget picks from --family; the student is given by --student")
        return given_student(arguments.student), None
    budget = Budget(**limits, profile=None if arguments.profile is None else load_profile(arguments.profile))
    budget.check()

    def choose(inputs: dict[str, np.ndarray], outputs: int, answers: np.ndarray | None) -> Student:
        return choose_student(inputs, outputs, budget, family=arguments.family, regression_answers=answers)

    return choose, budget


def _show(report: DistillingReport, out: Path) -> None:
    student, rows = report.student, report.rows
    print(f"{student.name}: {student.parameters:,} parameters", end="")
    print(
        ""
        if student.latency is None
        else f", {student.latency.ms:.3g} ms {student.latency.how}: {student.latency.method}"
    )
    print(
        f"{rows.labelled:,} labelled rows, {rows.unlabelled:,} that only the teacher labels, {rows.validation:,} "
        f"validation, {rows.evaluation:,} evaluation; {report.updates:,} updates a training"
    )
    shown = []
    if report.teacher.evaluation is not None:
        shown.append((f"teacher {report.teacher.name}", f"{report.teacher.evaluation:.4f}", "", "", ""))
    for name, each in (("student, labels alone", report.labels), ("student, distilled", report.distilled)):
        if each is not None:
            shown.append((
                name, f"{each.mean:.4f}", number(each.std, ".4f"), f"{each.minimum:.4f}", f"{each.maximum:.4f}"
            ))  # fmt: skip
    table((report.metric, "mean", "spread", "least", "most"), shown)
    if report.comparison is not None:
        print(report.comparison.sentence)
    print(f"kept: {report.kept.arm}, seed {report.kept.seed}: {report.kept.why}")
    print(f"wrote {out / STUDENT_FILE}")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("needs at least 1")
    return value
