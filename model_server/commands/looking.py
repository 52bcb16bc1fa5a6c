"""`keys list` and `export`: what a server's folder holds, on the machine that has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from model_server.db.base import open_engine
from model_server.installation import open_repository
from model_server.settings import load_settings
from model_server.signing.exporting import export
from model_server.signing.roles import delegated_models, person_of, releases_role, rollouts_role

__all__ = ["export_files", "list_keys"]


def export_files(directory: Path, out: Path, console: Console) -> dict[str, object]:
    """Write what devices fetch from the server of ``directory`` into ``out``, see `export`."""
    settings = load_settings(directory)
    repository = open_repository(settings, open_engine(settings.database_url))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("exporting")
        done = export(repository, out, lambda count, total: bar.update(task, completed=count, total=total))
    console.print(
        f"{out} holds the state of timestamp {done.timestamp_version}: {done.written} files written "
        f"({done.bytes:,} bytes), {done.kept} were there.",
        soft_wrap=True,
    )
    return {"out": str(out), **asdict(done)}


def list_keys(directory: Path) -> dict[str, object]:
    """Who may sign what: every role with its threshold, its keys and their owners."""
    settings = load_settings(directory)
    repository = open_repository(settings, open_engine(settings.database_url))
    root, targets = repository.root().signed, repository.top_level_targets().signed
    roles: list[dict[str, object]] = []
    for name, role in root.roles.items():
        owners = [(keyid, root.keys[keyid]) for keyid in role.keyids]
        roles.append(_role(name, role.threshold, [(keyid, person_of(key) or "server") for keyid, key in owners]))
    for model in delegated_models(targets):
        for name in (releases_role(model), rollouts_role(model)):
            delegated = targets.get_delegated_role(name)
            owners = [(keyid, targets.get_key(keyid)) for keyid in delegated.keyids]
            roles.append(
                _role(name, delegated.threshold, [(keyid, person_of(key) or "server") for keyid, key in owners])
            )
    return {"roles": roles}


def _role(name: str, threshold: int, owners: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "role": name,
        "threshold": threshold,
        "keys": [{"keyid": keyid, "owner": owner} for keyid, owner in owners],
    }
