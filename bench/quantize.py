"""Accuracy, bytes and latency of our quantized artifacts beside other tools' own defaults, on real models.

Each model of `bench.real_models` goes through the public command; other tools get the same float model and the same
calibration rows, each in a process of its own. Every file is then measured here, in the same engine with the same
settings and on the same evaluation rows, and against the fp32 artifact of the same target. Nothing is kept from one
run to the next.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers_quantize.measuring import specs
from bench.peers_quantize.process import attempt
from bench.peers_quantize.scoring import FLOAT, OURS, QuantizedRow, metrics
from bench.peers_quantize.tools import TOOLS
from bench.real_models.folder import MODELS, read_info
from converters.data import check_dataset, load_dataset
from converters.sources.base import is_batched
from converters.task import Task, find_task

TARGETS = ("onnx", "tflite", "coreml")
CONVERT_LIMIT_S = 900.0
AT_ONCE = 2  # processes that nothing is timed of; what is timed runs alone
SEARCH_S = 60  # a precision, instead of the command's 300, so that the bench ends within 20 minutes
FINE = (0, 3, 4)  # of edgeship-convert run: all, some, none of the artifacts are ok; the report says which


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``source`` is a file in the model's folder; ``max_drop`` is what the command is given.

    Sets of a hundred rows or none with labels get a wider limit: there, one decision is a point. ``search_s`` is the
    time of a search, for each precision.
    """

    model: str
    source: str
    max_drop: float = 0.005
    precisions: str = "fp32,int8"
    search_s: int = SEARCH_S
    more: tuple[str, ...] = ()


CASES = (
    Case(model="smartwatch", source="student.keras"),
    Case(model="employment", source="model.keras"),
    Case(model="regression", source="model.keras", max_drop=0.003),
    Case(model="digits-cnn", source="model.keras"),
    Case(model="transformer", source="model.keras"),
    Case(model="basic-pitch", source="model", max_drop=0.001),  # of decisions of which one in a hundred is a yes
    Case(model="silero-vad", source="model.onnx"),
    Case(model="wakeword", source="model.tflite", precisions="int8"),
    # A candidate takes seconds; a quick machine is done before the time is up.
    Case(model="efficientnet-lite0", source="model.pt2", max_drop=0.05, search_s=100),
)
QUICK = ("smartwatch", "employment")
Samples = dict[str, list[float]]


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], Samples]:
    rows: list[QuantizedRow] = []
    samples: Samples = {}
    cases = [case for case in CASES if not quick or case.model in QUICK]
    for case in cases:
        read_info(case.model)  # says at once what is not there
    for case in cases:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as folder:
            made, times = _Comparison(case, Path(folder)).run()
        rows += made
        samples |= times
        _show(case.model, made, time.perf_counter() - started)
    unmeasured = [f"{row.model} {row.target}: {row.reason}" for row in rows if row.tool == FLOAT and row.status != "ok"]
    if unmeasured:  # there is nothing to compare with, and every number would be missing or wrong
        raise RuntimeError(f"float artifacts that were made do not run here: {'; '.join(unmeasured)}")
    return metrics(rows), [asdict(row) for row in rows], samples


class _Comparison:
    """One model: our artifacts, the others', and what is measured of them."""

    def __init__(self, case: Case, scratch: Path) -> None:
        self.case, self.scratch, self.home = case, scratch, MODELS / case.model
        self.info = read_info(case.model)
        self.report: Mapping[str, Any] = {}

    def run(self) -> tuple[list[QuantizedRow], Samples]:
        _say(f"{self.case.model}: edgeship-convert run")
        failed = self._convert()
        if failed is not None:
            return [self._row(target, OURS, status="error", reason=failed) for target in TARGETS], {}
        self.outputs = specs(self.report["source"]["outputs"])
        self.inputs = specs(self.report["source"]["inputs"])
        self.data = check_dataset(load_dataset(self.home / "evaluation.npz"), self.inputs)
        rows: list[QuantizedRow] = []
        samples: Samples = {}
        for target in TARGETS:
            made, times = self._target(target)
            rows += made
            samples |= times
        return rows, samples

    def _convert(self) -> str | None:
        out, program = self.scratch / "out", Path(sys.executable).with_name("edgeship-convert")
        failed = attempt(
            program, "run", self.home / self.case.source, "--name", self.case.model, "--release", "1",
            "--calibration", self.home / "calibration.npz", "--evaluation", self.home / "evaluation.npz",
            "--targets", ",".join(TARGETS), "--precision", self.case.precisions,
            "--max-accuracy-drop", str(self.case.max_drop), "--search-seconds", str(self.case.search_s),
            "--no-peak-memory", *self.case.more, "--out", out,
            module=False, limit_s=CONVERT_LIMIT_S, fine=FINE,
        )  # fmt: skip
        if failed is None:
            self.report = json.loads((out / "report.json").read_text())
            for bundle in out.glob("*.bundle"):
                with zipfile.ZipFile(bundle) as archive:
                    for name in archive.namelist():
                        (self.scratch / Path(name).name).write_bytes(archive.read(name))
        return failed

    def _target(self, target: str) -> tuple[list[QuantizedRow], Samples]:
        files: dict[str, Path] = {}
        rows: list[QuantizedRow] = []
        reported = {each["asked"]: each for each in self.report["artifacts"] if each["target"] == target}
        exact, ours = reported.get("fp32"), reported["int8"]
        if exact is not None and exact["status"] == "ok":
            files[FLOAT] = self.scratch / exact["file"]
            rows.append(self._row(target, FLOAT, status="ok", precision="fp32"))
        row = self._row(target, OURS, status=ours["status"], precision=ours["precision"], reason=ours["reason"] or "")
        if ours["status"] == "ok":
            files[OURS] = self.scratch / ours["file"]
        rows.append(
            replace(
                row,
                int8_weight_share=ours["int8_weight_share"],
                float_operators=" ".join(ours["float_operators"]),
                # What the command measured of an artifact that did not pass its gate, and so is not in the bundle.
                accuracy=ours["accuracy"],
                agreement=ours["decision_agreement"],
            )
        )
        if FLOAT in files:
            tools = [name for name, tool in TOOLS.items() if tool.target == target]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                rows += [
                    self._kept(*made, files) for made in pool.map(lambda name: self._peer(name, files[FLOAT]), tools)
                ]
        return self._measured(target, rows, files)

    @staticmethod
    def _kept(row: QuantizedRow, file: Path | None, files: dict[str, Path]) -> QuantizedRow:
        if file is not None:
            files[row.tool] = file
        return row

    def _peer(self, name: str, exact: Path) -> tuple[QuantizedRow, Path | None]:
        tool = TOOLS[name]
        if tool.kinds is not None and self.report["source"]["kind"] not in tool.kinds:
            reason = f"starts from {' or '.join(tool.kinds)} only"
            return self._row(tool.target, name, status="not applicable", reason=reason), None
        _say(f"{self.case.model}: {name}")
        out = self.scratch / f"peer-{list(TOOLS).index(name)}-{tool.target}"
        failed = attempt(
            "bench.peers_quantize.tools", name, self.home / self.case.source, exact,
            self.home / "calibration.npz", "batched" if is_batched(self.inputs) else "single", out,
        )  # fmt: skip
        if failed is not None:
            return self._row(tool.target, name, status="error", reason=failed), None
        return self._row(tool.target, name, status="ok", precision=tool.precision), out

    def _measured(
        self, target: str, rows: list[QuantizedRow], files: Mapping[str, Path]
    ) -> tuple[list[QuantizedRow], Samples]:
        job = self.scratch / f"{target}.json"
        source = self.report["source"]
        evaluation = str((self.home / "evaluation.npz").resolve())  # what measures it runs in another folder
        job.write_text(
            json.dumps(
                {"target": target, "evaluation": evaluation, "inputs": source["inputs"], "outputs": source["outputs"]}
            )
        )
        answers, failures = {}, {}

        def answer(named: tuple[str, Path]) -> tuple[str, Path, str | None]:
            name, file = named
            _say(f"{self.case.model}: measuring {target}, {name}")
            out = self.scratch / f"{file.name}.answers.npz"
            return name, out, attempt("bench.peers_quantize.measuring", "answers", job, out, file)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, out, failed in pool.map(answer, files.items()):
                if failed is None:
                    with np.load(out) as loaded:
                        answers[name] = dict(loaded)
                else:
                    failures[name] = failed
        times = self._times(target, job, {name: file for name, file in files.items() if name in answers})
        measured = [self._with_numbers(row, files, answers, failures, times) for row in rows]
        samples = {
            f"{self.case.model}/{target}/{name}/{turn}": values
            for name, both in times.items()
            for turn, values in zip("ab", both, strict=True)
        }
        return measured, samples

    def _times(self, target: str, job: Path, files: Mapping[str, Path]) -> dict[str, tuple[list[float], list[float]]]:
        if target == "coreml":  # evaluated here, not run
            return {}
        out = self.scratch / f"{target}.times.json"
        failed = attempt(
            "bench.peers_quantize.measuring", "times", job, out, *(f"{name}={file}" for name, file in files.items())
        )
        if failed is not None:
            _say(f"{self.case.model}: {target} was not timed: {failed}")
            return {}
        return dict(json.loads(out.read_text()))

    def _with_numbers(
        self,
        row: QuantizedRow,
        files: Mapping[str, Path],
        answers: Mapping[str, Mapping[str, np.ndarray]],
        failures: Mapping[str, str],
        times: Mapping[str, tuple[list[float], list[float]]],
    ) -> QuantizedRow:
        if row.tool in failures:
            return replace(
                row, status="error", reason=f"does not run: {failures[row.tool]}", accuracy=None, agreement=None
            )
        if row.tool not in answers:
            return row
        size = files[row.tool].stat().st_size
        given = answers[row.tool]
        row = replace(row, bytes=size)
        if FLOAT in answers:
            exact = answers[FLOAT]
            task = self._task(exact)
            truth = task.truth(self.data)
            error = max(
                float(np.abs(exact[n].astype(np.float64) - given[n].reshape(exact[n].shape)).max()) for n in exact
            )
            row = replace(
                row,
                bytes_ratio=round(size / files[FLOAT].stat().st_size, 4),
                accuracy=None if truth is None else task.accuracy(given, truth),
                agreement=task.agreement(exact, given),
                max_abs_error=error,
                labelled_rows=0 if truth is None else len(truth),
            )
        if row.tool in times:
            first, second = (statistics.median(values) for values in times[row.tool])
            p50 = statistics.median([*times[row.tool][0], *times[row.tool][1]])
            row = replace(row, p50_us=round(p50, 2), aa_ratio=round(max(first, second) / min(first, second), 4))
        return row

    def _task(self, exact: Mapping[str, np.ndarray]) -> Task:
        return find_task(self.outputs, self.report["source"]["activation"], exact, self.data)

    def _row(self, target: str, tool: str, **known: Any) -> QuantizedRow:
        source = self.report.get("source", {})
        return QuantizedRow(
            model=self.case.model,
            target=target,
            tool=tool,
            rows=self.info.splits["evaluation"].rows,
            convolutional=self.info.convolutional,
            parameters=source.get("parameters") or self.info.parameters or 0,
            **known,
        )


def _say(text: str) -> None:
    print(f"    {text}", file=sys.stderr, flush=True)


def _show(model: str, rows: list[QuantizedRow], seconds: float) -> None:
    evaluated = max((row.rows for row in rows), default=0)
    print(f"\n{model}: {evaluated:,} evaluation rows, {seconds:.0f} s")
    print(
        f"  {'':47}{'precision':>13}{'bytes':>11}{'of fp32':>9}{'accuracy':>10}{'agreement':>11}{'p50 µs':>10}"
        f"{'A/A':>7}"
    )
    for row in rows:
        cells = (
            (row.precision or "–", 13),
            (_number(row.bytes, ","), 11),
            (_number(row.bytes_ratio, ".2f"), 9),
            (_number(row.accuracy, ".4f"), 10),
            (_number(row.agreement, ".4f"), 11),
            (_number(row.p50_us, ",.1f"), 10),
            (_number(row.aa_ratio, ".3f"), 7),
        )
        print(f"  {row.target:7}{row.tool:40}" + "".join(f"{text:>{width}}" for text, width in cells))
        if row.status != "ok":
            print(f"  {'':7}  {row.status}: {row.reason}")
    sys.stdout.flush()


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
