"""Which models the repository knows, and who may sign for one."""

from __future__ import annotations

from tuf.api.metadata import Targets

from edge_runtime.bundle import check_model
from model_server.errors import UnknownModel
from model_server.signing.repository import Repository
from model_server.signing.roles import delegated_models, releases_role

__all__ = ["delegating", "threshold_of"]


def delegating(repository: Repository, model: str) -> Targets:
    """The top-level targets, which delegate ``model``. Raises UnknownModel, InvalidName."""
    targets = repository.top_level_targets().signed
    if check_model(model) not in delegated_models(targets):
        raise UnknownModel(f"no model {model!r} is delegated here: `edgeship-server keys delegate` adds one")
    return targets


def threshold_of(targets: Targets, model: str) -> int:
    """How many people must sign what ``releases-<model>`` says."""
    return targets.get_delegated_role(releases_role(model)).threshold
