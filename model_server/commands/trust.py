"""What a person's own machine holds: the root that they pin, what it remembers, and the keys that they sign with."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

from model_server.clock import SystemClock
from model_server.errors import SettingsError
from model_server.releases.signing import Manager
from model_server.signing.uris import KeyUri

__all__ = ["Ask", "Place", "key_uri", "manager_of", "passphrase_for", "read_root", "signing_key", "trust_folder"]

# A key as it was typed: the path of a file, or a URI.
Place = Path | str
# Asks for a passphrase or PIN: in a file, else at the terminal.
Ask = Callable[..., bytes]


def manager_of(args: argparse.Namespace, ask: Ask) -> Manager:
    """Who signs a release or a policy, by their options. Raises: SettingsError, KeyRejected."""
    return Manager(
        key=signing_key(args.key, args, ask),
        passphrase=passphrase_for([args.key], args, ask),
        root=read_root(args.root, args.key),
        trust=trust_folder(args.trust, args.key),
        now=SystemClock().now(),
        accept_expired=args.accept_expired,
    )


def read_root(root: Path | None, key: Place | None) -> bytes:
    """``root``, else ``root.json`` beside the key, or here. Raises SettingsError."""
    root_file = root or (key.parent if isinstance(key, Path) else Path()) / "root.json"
    try:
        return root_file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the root that you trust, {root_file}, cannot be read ({error.strerror}): give it with --root"
        ) from error


def trust_folder(trust: Path | None, key: Place) -> Path:
    """``trust``, else a folder beside the key, or here, that is named after it."""
    if trust is not None:
        return trust
    if isinstance(key, Path):
        return key.with_suffix(".trust")
    return Path(f"{key.partition(':')[0]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.trust")


def signing_key(key: Place, args: argparse.Namespace, ask: Ask) -> Path | KeyUri:
    """The key, with the way to its PIN if it is on a token."""
    return key if isinstance(key, Path) else key_uri(key, args, ask)


def key_uri(key: str, args: argparse.Namespace, ask: Ask) -> KeyUri:
    """The PIN is asked for once it is needed, and then remembered."""
    known: dict[str, str] = {}

    def secret(name: str) -> str:
        if name not in known:
            known[name] = ask(args.pin_file, what=f"{name} of {key}").decode()
        return known[name]

    return KeyUri(uri=key, secret=secret)


def passphrase_for(keys: list[Place], args: argparse.Namespace, ask: Ask) -> bytes:
    """What opens the key files among ``keys``; nothing is asked if there is none."""
    return ask(args.passphrase_file) if any(isinstance(key, Path) for key in keys) else b""
