"""What this project asks of a repository beyond TUF. Pure: judges metadata that TUF has verified.

* The top-level ``targets`` role lists no target: TUF would let it win over every delegated role and its threshold.
* ``releases-<model>`` alone lists ``models/<model>/…``, ``rollouts-<model>`` alone ``rollouts/<channel>/<model>.json``,
  whatever other delegations there are and in whatever order.
* A key counts once in a role, however many ids it has: else one person could be a threshold of two.
* A delegated role says its own name. TUF's metadata does not: where one key signs several roles, whoever holds the
  network, and no key, could show one for another, so that a halt or a revocation is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_runtime.errors import Outcome, UpdateError

if TYPE_CHECKING:
    from securesystemslib.signer import Key
    from tuf.api.metadata import DelegatedRole, Delegations, Root, TargetFile, Targets

__all__ = [
    "ROLE_FIELD",
    "check_role",
    "check_root",
    "check_targets",
    "find_target",
    "key_identity",
    "releases_role",
    "rollouts_role",
]


ROLE_FIELD = "x-edgeship-role"


def releases_role(model: str) -> str:
    return f"releases-{model}"


def rollouts_role(model: str) -> str:
    return f"rollouts-{model}"


def check_root(root: Root) -> None:
    """Raise `UpdateError` unless every role of ``root`` has a key only once."""
    for name, role in root.roles.items():
        _check_keys(name, role.keyids, root.keys)


def check_targets(targets: Targets, model: str) -> None:
    """Raise `UpdateError` unless the top-level ``targets`` delegates only, and delegates ``model`` as it should.

    ``Outcome.UNKNOWN_MODEL`` means that it does not delegate the model at all.
    """
    if targets.targets:
        raise _rejected("the top-level targets role lists targets itself; only releases- and rollouts- roles may")
    delegations = targets.delegations
    for name in (releases_role(model), rollouts_role(model)):
        role = _role(delegations, name)
        if delegations is None or role is None:
            raise UpdateError(
                Outcome.UNKNOWN_MODEL, f"the server has no role {name}: check the model's name, or add the model there"
            )
        _check_keys(name, role.keyids, delegations.keys)


def check_role(targets: Targets, role_name: str, role: Targets) -> None:
    """Raise `UpdateError` if the metadata of ``role`` is that of another role than ``role_name``.

    Metadata that does not say, as it was made before there was this rule, may list only what is delegated to that name.
    """
    stated = role.unrecognized_fields.get(ROLE_FIELD)
    if stated is None:
        for path in role.targets:
            find_target(targets, role_name, role, path)
    elif stated != role_name:
        raise _rejected(f"the server sent the metadata of {stated!a} for {role_name}")


def find_target(targets: Targets, role_name: str, role: Targets, path: str) -> TargetFile | None:
    """The target ``path`` that the delegated ``role`` lists, or None if it lists none.

    Raises `UpdateError` if the delegation does not cover the path: then the role had no right to list it.
    """
    delegated = _role(targets.delegations, role_name)
    found = role.targets.get(path)
    if found is not None and (delegated is None or not delegated.is_delegated_path(path)):
        raise _rejected(f"{role_name} lists {path}, which was not delegated to it")
    return found


def _role(delegations: Delegations | None, name: str) -> DelegatedRole | None:
    return None if delegations is None or delegations.roles is None else delegations.roles.get(name)


def _check_keys(role: str, keyids: Iterable[str], keys: Mapping[str, Key]) -> None:
    seen: set[str] = set()
    for keyid in keyids:
        key = keys.get(keyid)
        if key is None:
            continue
        public = key.keyval.get("public")
        if not isinstance(public, str):
            raise _rejected(f"{role} has a key of a kind that is not used here ({key.keytype})")
        if key_identity(public) in seen:
            raise _rejected(f"{role} has the same key under two ids, so its threshold means nothing")
        seen.add(key_identity(public))


def key_identity(public: str) -> str:
    """The same text for the same public key, however it is written: hex with spaces, PEM with comments, other line
    lengths, compressed points."""
    if "-----BEGIN" not in public:
        return "".join(public.split()).lower()
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
    except ImportError:
        return public.strip()  # then no such key can verify anything here
    try:
        return load_pem_public_key(public.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
    except (ValueError, UnsupportedAlgorithm):
        return public.strip()  # nor can one that does not load


def _rejected(text: str) -> UpdateError:
    return UpdateError(Outcome.METADATA_REJECTED, f"{text}; nothing of it is used")
