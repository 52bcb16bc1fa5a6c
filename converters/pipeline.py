"""From a source to a bundle: every stage in its own process, one row of the report for everything that was asked.

The parent of the stages: it loads no engine and no converter, decides what comes next, and writes the output folder,
whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from converters.budgets import unfit_targets, within_budgets
from converters.bundling import Bundled, artifact_name, refuse_unwritable, write_bundle
from converters.data import Dataset, save_dataset
from converters.errors import ConverterError, InvalidRequest, OutputError
from converters.evaluate import machine
from converters.html_report import HTML_FILE, html_report
from converters.installed import versions_used
from converters.output import written_whole
from converters.progress import Say, unheard
from converters.reference import check_features, default_features
from converters.report import REPORT_FILE, Report, Row, write_report
from converters.request import Request, check_request, needs_calibration
from converters.rows import UNTIMED, failed, judged, with_cost_notes, with_float, with_quantized, without_twins
from converters.runner import WORKERS, InProcess, Runner, Subprocesses
from converters.stages import describe, floats, latency, measure, memory, quantize
from converters.stages.files import EDGE, given_file, make_folders
from converters.stages.sources import SourceRef, forget, keep
from converters.warn import warnings_of
from devices.profiles import load_profile
from edge_runtime.bundle import CARD_FILE, Requirements
from edge_runtime.bundle.manifest import Target

__all__ = ["EXIT_NONE", "EXIT_OK", "EXIT_SOME", "Outcome", "run"]

EXIT_OK, EXIT_SOME, EXIT_NONE = 0, 3, 4
OURS = ("*.bundle", REPORT_FILE, HTML_FILE, CARD_FILE)  # what an earlier run may have left, and --overwrite replaces
MIN_ROWS = {"calibration": 8, "evaluation": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``bundle`` is None where no artifact was ok; only the report was written then."""

    report: Report
    out: Path
    bundle: Bundled | None

    @property
    def exit_code(self) -> int:
        return self.report.exit_code


def run(
    request: Request,
    *,
    say: Say = unheard,
    runner: Runner | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Convert, quantize, measure and bundle what ``request`` asks for, into its folder ``out``.

    What happens to one target is a row of the report and leaves the others alone. Raised are only errors of the
    request, the data and the source (`InvalidRequest`, `DataError`, `SourceError`), of the output folder
    (`OutputError`), and of a source that cannot be loaded; nothing is written then.

    A source that is an object is converted in this process, unless ``runner`` says otherwise; a file in processes of
    its own.
    """
    check_request(request)
    with written_whole(request.out, overwrite=request.overwrite, ours=OURS) as folder:
        work = folder / ".work"
        make_folders(work)
        try:
            runner = runner or (Subprocesses(work) if isinstance(request.source, str | Path) else InProcess())
            return _Conversion(request, runner, say, work, folder, clock).run()
        finally:
            shutil.rmtree(work, ignore_errors=True)


class _Conversion:
    """One run: its work folder, its stages, and the rows so far."""

    def __init__(
        self, request: Request, runner: Runner, say: Say, work: Path, folder: Path, clock: Callable[[], datetime]
    ) -> None:
        self._request = request
        self._runner = runner
        self._work = work
        self._folder = folder
        self._clock = clock
        self._steps = _Steps(say, 3 + len(request.targets) * (1 + 2 * len(request.precisions)))
        self._isolated = Subprocesses(work)
        self._measured: dict[str, measure.Result] = {}
        self._profile = None if request.profile is None else load_profile(request.profile)

    def run(self) -> Outcome:
        started = time.monotonic()
        source = self._request.source
        ref = (
            SourceRef(
                where=str(source),
                name=self._request.name,
                first_axis=self._request.first_axis,
                signature=self._request.signature,
                axes=self._request.axes,
                trust_pickle=self._request.trust_pickle,
            )
            if isinstance(source, str | Path)
            else keep(source)
        )
        try:
            described = self._describe(ref)
            self._refuse_wrong_description(described)
            rows = self._rows(described)
        finally:
            forget(ref)
        rows = with_cost_notes(self._timed(rows, described))
        return self._written(rows, described, time.monotonic() - started)

    # -- stages ------------------------------------------------------------------------------------------------------

    def _describe(self, ref: SourceRef) -> describe.Result:
        request = self._request
        given = {
            "evaluation": request.evaluation,
            "calibration": request.calibration,
            "confidence": request.confidence,
            "training": request.training,
            **{f"{EDGE}{name}": data for name, data in request.edge_cases.items()},
        }
        job = describe.Job(
            source=ref,
            targets=request.targets,
            data={split: self._as_file(split, data) for split, data in given.items() if data is not None},
            minimum=MIN_ROWS if needs_calibration(request) else {"evaluation": MIN_ROWS["evaluation"]},
            work=str(self._work),
            task=request.task,
        )
        result: describe.Result = self._stage("describe", job, "loading the source and its data")
        arrays = {split: data for split, data in given.items() if isinstance(data, Dataset) and split in result.splits}
        named = {split: replace(result.splits[split], name=data.name) for split, data in arrays.items()}
        return replace(result, splits={**result.splits, **named})  # they had a file for the stages alone

    def _refuse_wrong_description(self, described: describe.Result) -> None:
        """What a person said of the model, held against the model."""
        labels, task = self._request.labels, described.task
        check_features(self._request.features or (), described.info.inputs)
        if labels and len(labels) != task.classes:
            raise InvalidRequest(f"{len(labels)} labels for {task.classes} classes of a {task.kind} model")
        refuse_unwritable(self._request, described, self._labels(described))

    def _as_file(self, split: str, data: Dataset | Path | str) -> str:
        if not isinstance(data, Dataset):
            return str(data)
        path = given_file(self._work, split)
        save_dataset(data, path)
        return str(path)

    def _rows(self, described: describe.Result) -> list[Row]:
        """One row for each asked target × precision, in the order they were asked for."""

        def of_target(target: Target) -> list[Row]:
            return self._target(described, target)

        targets = dict.fromkeys(self._request.targets)
        if isinstance(self._runner, InProcess):
            return [row for target in targets for row in of_target(target)]
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            try:
                return [row for rows in pool.map(of_target, targets) for row in rows]
            except BaseException:
                self._runner.stop()  # or leaving this block would wait for all that the other targets still have to do
                raise

    def _target(self, described: describe.Result, target: Target) -> list[Row]:
        precisions = list(dict.fromkeys(self._request.precisions))
        bare = [Row(target=target, asked=each, precision=each, status="error") for each in precisions]
        refused = dict(described.refused)
        if self._profile is not None:
            refused |= unfit_targets(self._profile, (target,))
        if target in refused:
            self._steps.skip(1 + 2 * len(bare))
            return [replace(row, status="refused", reason=refused[target]) for row in bare]
        try:
            job = floats.Job(source=described.source, target=target, work=str(self._work))
            made = self._stage("floats", job, f"converting to {target}")
        except OutputError:
            raise
        except ConverterError as error:
            self._steps.skip(2 * len(bare))
            return [failed(row, error) for row in bare]
        quantized = described.info.precision != "fp32"
        return without_twins([self._precision(described, with_float(row, made, quantized), made) for row in bare])

    def _precision(self, described: describe.Result, row: Row, made: floats.Result) -> Row:
        """The row with its artifact quantized, measured and judged."""
        request, what = self._request, f"{row.target} {row.asked}"
        job = quantize.Job(
            target=row.target,
            precision=row.asked,
            file=made.file,
            info=described.info,
            task=described.task,
            work=str(self._work),
            limit=request.max_accuracy_drop,
            recipe=request.quantization,
            search_seconds=request.search_seconds,
            fallback=request.fallback,
        )
        try:
            row = with_quantized(row, self._stage("quantize", job, f"quantizing {what}"))
            measured = self._stage("measure", self._measure_job(described, row), f"measuring {what}")
        except OutputError:
            raise
        except ConverterError as error:
            return failed(row, error)
        row = judged(row, measured, described.task, request.max_accuracy_drop)
        self._measured.setdefault(row.kind, measured)
        return row

    def _measure_job(self, described: describe.Result, row: Row) -> measure.Job:
        request = self._request
        assert row.file is not None
        features = request.features
        return measure.Job(
            target=row.target,
            precision=row.precision,
            file=row.file,
            info=described.info,
            task=described.task,
            work=str(self._work),
            rule=request.rule,
            features=default_features(described.info.inputs) if features is None else features,
            labels=self._labels(described),
            edge_cases=tuple(request.edge_cases),
        )

    def _labels(self, described: describe.Result) -> tuple[str, ...]:
        classes = described.task.classes
        return self._request.labels or tuple(str(index) for index in range(classes))

    def _timed(self, rows: list[Row], described: describe.Result) -> list[Row]:
        """The rows with latency and peak memory, measured when nothing else runs."""
        files = {row.kind: row.file for row in rows if row.status == "ok" and row.file is not None}
        if not files:
            return rows
        job = latency.Job(files=files, info=described.info, work=str(self._work))
        timed: Mapping[str, latency.Latency] = {}
        try:
            timed = self._stage("latency", job, "measuring latency").latencies
        except OutputError:
            raise
        except ConverterError as error:
            rows = [replace(row, notes=(*row.notes, f"{UNTIMED}{error}")) for row in rows]
        return [self._with_cost(row, timed, described) if row.status == "ok" else row for row in rows]

    def _with_cost(self, row: Row, timed: Mapping[str, latency.Latency], described: describe.Result) -> Row:
        peak = None
        if self._request.peak_memory:
            assert row.file is not None
            job = memory.Job(target=row.target, file=row.file, info=described.info, work=str(self._work))
            try:
                what = f"memory of {row.kind}"
                peak = self._isolated.run("memory", job, what=what, say=self._steps.inside).peak_bytes
            except OutputError:
                raise
            except ConverterError as error:
                row = replace(row, notes=(*row.notes, f"memory was not measured: {error}"))
        measured = timed.get(row.kind)
        row = replace(
            row,
            p50_us=None if measured is None else measured.p50_us,
            p50_aa_ratio=None if measured is None else measured.aa_ratio,
            peak_memory_bytes=peak,
        )
        if self._profile is None:
            return row
        return within_budgets(row, self._profile, self._request.requirements or Requirements())

    def _stage(self, stage: str, job: Any, what: str) -> Any:
        self._steps.next(what)
        return self._runner.run(stage, job, what=what, say=self._steps.inside)

    # -- the folder --------------------------------------------------------------------------------------------------

    def _written(self, rows: list[Row], described: describe.Result, seconds: float) -> Outcome:
        request = self._request
        ok = [row for row in rows if row.status == "ok"]
        self._steps.next("writing the bundle")
        created = self._clock()
        bundle = None
        if ok:
            bundle = write_bundle(
                request,
                described,
                {row.kind: row for row in ok},
                self._measured,
                labels=self._labels(described),
                work=self._work,
                created=created,
                folder=self._folder,
            )
        report = Report(
            name=request.name,
            release=request.release,
            created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            source=described.info,
            task=described.task.kind,
            max_accuracy_drop=request.max_accuracy_drop,
            profile=request.profile,
            splits=described.splits,
            artifacts=tuple(replace(row, file=artifact_name(request.name, row) if row in ok else None) for row in rows),
            absent=self._absent(described, bundle),
            warnings=(*warnings_of(described), *_untrusted(ok)),
            packages=versions_used(described.info.kind, rows),
            machine=machine(),
            seconds=round(seconds, 1),
            exit_code=EXIT_OK if len(ok) == len(rows) else EXIT_SOME if ok else EXIT_NONE,
            bundle=None if bundle is None else bundle.path.name,
            bundle_sha256=None if bundle is None else bundle.sha256,
            bundle_bytes=None if bundle is None else bundle.bytes,
        )
        write_report(report, self._folder)
        (self._folder / HTML_FILE).write_text(html_report(report), encoding="utf-8")
        if bundle is not None:
            bundle = replace(bundle, path=request.out / bundle.path.name)
        return Outcome(report=report, out=request.out, bundle=bundle)

    def _absent(self, described: describe.Result, bundle: Bundled | None) -> tuple[str, ...]:
        missing = dict.fromkeys(reason for each in self._measured.values() for reason in each.missing)
        return (*missing, *(() if bundle is None else bundle.absent))


def _untrusted(rows: Sequence[Row]) -> list[str]:
    """Artifacts of which devices will trust no answer: that is safe, and no use."""
    return [
        f"{row.kind}: no answer will be trusted, {row.confidence.note or 'since no threshold holds the target risk'}"
        for row in rows
        if row.confidence is not None and row.confidence.coverage == 0
    ]


class _Steps:
    """Counts the stages begun, and passes their own progress on as text. Stages of several targets run at once."""

    def __init__(self, say: Say, total: int) -> None:
        self._say, self._total, self._done, self._lock = say, total, 0, threading.Lock()

    def next(self, text: str) -> None:
        with self._lock:
            self._say(text, min(self._done, self._total - 1), self._total)
            self._done += 1

    def skip(self, steps: int) -> None:
        with self._lock:
            self._done += steps

    def inside(self, text: str, done: int, total: int) -> None:
        """What has no count of its own (an installation, say) goes on as such: a log prints it beside the steps."""
        with self._lock:
            self._say(text, max(0, min(self._done, self._total) - 1), self._total if total else 0)
