"""The gate: the built-in checks, then the operator's command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.bundle import MANIFEST_FILE, Bundle, Manifest
from model_server.errors import ReadinessRefused
from model_server.releases.readiness.checks import builtin_checks
from model_server.releases.readiness.hook import run_hook
from model_server.releases.readiness.report import Report
from model_server.releases.watch import UNWATCHED, Watch

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """``command`` is run over each bundle, if there is one, for at most ``timeout_s`` seconds; it sees little of
    ``environment``. ``max_accuracy_drop`` is `builtin_checks`'."""

    command: tuple[str, ...] = ()
    timeout_s: float = 600.0
    max_accuracy_drop: float | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def judge(
        self,
        bundle: Bundle,
        path: Path,
        newest: Manifest | None,
        actor: str,
        *,
        allow_interface_change: bool = False,
        watch: Watch = UNWATCHED,
    ) -> Report:
        """What was found; ``path`` is where ``bundle`` lies. Raises: ReadinessRefused, ReadinessBroken."""
        manifest = bundle.manifest
        checks = builtin_checks(
            manifest,
            newest,
            max_accuracy_drop=self.max_accuracy_drop,
            allow_interface_change=allow_interface_change,
        )
        failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
        if failed:
            raise ReadinessRefused("; ".join(failed))
        if not self.command:
            return Report(checks=checks)
        watch.at("readiness")
        about = {
            "model": manifest.model,
            "release": manifest.release,
            "version": manifest.version,
            "bundle_sha256": bundle.sha256,
            "staged_by": actor,
            "newest_published": None if newest is None else newest.release,
            "manifest": json.loads(bundle.read(MANIFEST_FILE)),
        }
        hook = run_hook(self.command, path, about, timeout_s=self.timeout_s, environment=self.environment, watch=watch)
        return Report(checks=checks, hook=hook)
