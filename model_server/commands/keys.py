"""`keys`: who may sign what, and changing it. Runs where the server's folder is, except `new`, `show` and `sign`, which
run on people's own machines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.markup import escape
from securesystemslib.signer import Key

from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.commands.show import table
from model_server.commands.trust import Ask, key_uri, passphrase_for, read_root, signing_key, trust_folder
from model_server.db.base import writing
from model_server.db.migrate import open_database
from model_server.errors import SettingsError
from model_server.installation import online_uri, open_publisher
from model_server.settings import SETTINGS_FILE, Settings, load_settings
from model_server.signing.chain import published_files
from model_server.signing.changes.delegating import signed_delegation
from model_server.signing.changes.document import Change, merge, read_change, write_change
from model_server.signing.changes.editing import Editor, Holding
from model_server.signing.changes.judging import judge
from model_server.signing.changes.publishing import publish_change, published_state
from model_server.signing.changes.signatures import Needed, needed
from model_server.signing.changes.signing import Looked, look_at, sign_change
from model_server.signing.keys import online_signer, read_passphrase, save_key
from model_server.signing.kinds import KINDS
from model_server.signing.people import check_person, make_personal_keys, own_key, read_public_keys
from model_server.signing.publisher import Publisher, online_key_file
from model_server.signing.roles import ONLINE_FIELD, PERSON_FIELD, releases_role, rollouts_role
from model_server.signing.state import Offline

__all__ = ["run_keys"]

Answer = dict[str, Any]


def run_keys(
    args: argparse.Namespace, console: Console, passphrase: Ask, confirm: Callable[[str], bool], clock: Clock
) -> Answer:
    match args.action:
        case "new":
            return _new(args, console, passphrase)
        case "show":
            return _show(args, console, clock)
        case "sign":
            return _sign(args, console, passphrase, confirm, clock)
        case "publish":
            return _publish(args, console, clock)
        case "delegate":
            return _delegate(args, console, passphrase, clock)
    return _propose(args, console, clock)


def _new(args: argparse.Namespace, console: Console, passphrase: Ask) -> Answer:
    uris = dict(args.uri)
    public_files = {kind: Path(file) for kind, file in args.public}
    kinds = [kind for kind in args.role or ([] if uris else KINDS[1:]) if kind not in uris]
    if set(public_files) - set(uris):
        raise SettingsError("--public is the public half of what --uri names for the same role")
    secret = passphrase(args.passphrase_file, new=True) if kinds else b""
    found = {
        kind: own_key(key_uri(uri, args, passphrase), public_files.get(kind), PERSON_FIELD, check_person(args.person))
        for kind, uri in uris.items()
    }
    public = make_personal_keys(args.out, args.person, kinds, secret, {kind: key for kind, (_, key) in found.items()})
    console.print(f"{public} is what you hand over.")
    if kinds:
        console.print("The .pem files beside it are yours alone: keep a copy safe.")
    for kind, (place, key) in found.items():
        console.print(f"{kind}: sign with --key '{place}'{_needs_extra(key)}", soft_wrap=True)
    return {
        "person": args.person,
        "public": str(public),
        "keys": sorted(str(p) for p in args.out.glob("*.pem")),
        "uris": {kind: place.uri for kind, (place, _) in found.items()},
    }


def _needs_extra(key: Key) -> str:
    return "" if key.keytype == "ed25519" else f". Devices need the extra `device` to verify {key.scheme}"


def _propose(args: argparse.Namespace, console: Console, clock: Clock) -> Answer:
    """Write the file of a change, unsigned."""
    settings = load_settings(args.directory)
    publisher = open_publisher(settings, clock)
    now = clock.now()
    with publisher.repository.lock():
        before = published_state(publisher.repository)
        editor = Editor(before, now, settings.expiry)
        _edit(args, editor, settings)
        change = editor.changed()
        models = [model for model in before.models if releases_role(model) in change]
        published = published_files(publisher.repository, models)
    review = judge(before, change, now)
    path: Path = args.out or Path(f"{args.action}-{now:%Y%m%d-%H%M%S}.change.json")
    write_change(path, Change(metadata=change, published=published))
    _print_lines(console, review.lines)
    _print_needed(console, needed(before, change))
    console.print(
        f"{path} waits for these signatures: each person runs `edgeship-server keys sign` on it, or on a copy, on "
        f"their own machine. Then: edgeship-server keys publish {path} --dir {args.directory}",
        soft_wrap=True,
    )
    return {"change": str(path), "lines": list(review.lines), "needed": _needed_json(needed(before, change))}


def _edit(args: argparse.Namespace, editor: Editor, settings: Settings) -> None:
    roles = getattr(args, "role", None) or None
    models = getattr(args, "model", None) or None
    for path in getattr(args, "add", None) or ():
        editor.add(_holdings(path, None), models)
    match args.action:
        case "add":
            editor.add(_holdings(args.public, roles), models)
        case "remove":
            editor.remove(args.person, roles, models)
        case "rotate":
            editor.rotate(_holdings(args.public, roles))
        case "revoke":
            editor.revoke(args.keyid)
        case "renew":
            editor.renew(args.renewed)
        case "rotate-online":
            _rotate_online(args, editor, settings)


def _rotate_online(args: argparse.Namespace, editor: Editor, settings: Settings) -> None:
    if args.uri is None:
        private = Ed25519PrivateKey.generate()
        key = online_signer(private, args.use).public_key
        editor.rotate_online(args.use, key)
        secret = read_passphrase(settings.online_passphrase)
        save_key(online_key_file(settings.keys_dir, args.use, key.keyid), private, secret)
        return
    place, key = own_key(online_uri(settings, args.uri), args.public, ONLINE_FIELD, args.use)
    if settings.online_uris.get(args.use) != place.uri:
        raise SettingsError(
            f"first write {args.use} = {json.dumps(place.uri)} under [signing] in "
            f"{settings.directory / SETTINGS_FILE} and start the server again: it must find the key in "
            "the moment that the change is published"
        )
    editor.rotate_online(args.use, key)


def _holdings(path: Path, roles: Sequence[str] | None) -> list[Holding]:
    return [Holding(kind=kind, key=key) for kind, key in read_public_keys(path).items() if not roles or kind in roles]


def _show(args: argparse.Namespace, console: Console, clock: Clock) -> Answer:
    looked = look_at(args.change, _root(args), _trust(args), accept_expired=args.accept_expired, now=clock.now())
    _print_review(console, looked)
    return _looked_json(looked)


def _sign(
    args: argparse.Namespace, console: Console, passphrase: Ask, confirm: Callable[[str], bool], clock: Clock
) -> Answer:
    def reviewed(looked: Looked) -> bool:
        _print_review(console, looked)
        return bool(args.yes) or confirm("Sign this change?")

    looked, roles = sign_change(
        args.change,
        [signing_key(key, args, passphrase) for key in args.key],
        passphrase_for(args.key, args, passphrase),
        root=_root(args),
        trust=_trust(args),
        accept_expired=args.accept_expired,
        confirm=reviewed,
        now=clock.now(),
    )
    console.print(f"signed: {', '.join(roles)}")
    _print_needed(console, looked.needed)
    return {"signed": roles, **_looked_json(looked)}


def _publish(args: argparse.Namespace, console: Console, clock: Clock) -> Answer:
    settings = load_settings(args.directory)
    change = merge([read_change(path) for path in args.changes])
    lines = _put_out(settings, open_publisher(settings, clock), change.metadata, clock)
    _print_lines(console, lines)
    console.print("published")
    return {"published": sorted(change.metadata), "lines": list(lines)}


def _delegate(args: argparse.Namespace, console: Console, passphrase: Ask, clock: Clock) -> Answer:
    """Add a model in one step, with keys that are at hand: by default all those of the folder."""
    settings = load_settings(args.directory)
    publisher = open_publisher(settings, clock)
    targets_keys = args.targets_key or sorted(settings.keys_dir.glob("targets-*.pem"))
    releases_keys = args.releases_key or sorted(settings.keys_dir.glob("releases-*.pem"))
    change = signed_delegation(
        publisher,
        args.model,
        [signing_key(key, args, passphrase) for key in targets_keys],
        [signing_key(key, args, passphrase) for key in releases_keys],
        passphrase_for([*targets_keys, *releases_keys], args, passphrase),
        clock.now(),
        settings.expiry,
    )
    _put_out(settings, publisher, change, clock)
    console.print(f"{args.model} has the roles {releases_role(args.model)} and {rollouts_role(args.model)}")
    return {"model": args.model, "roles": [releases_role(args.model), rollouts_role(args.model)]}


def _put_out(settings: Settings, publisher: Publisher, change: Mapping[str, Offline], clock: Clock) -> tuple[str, ...]:
    lines = publish_change(publisher, change, clock.now()).lines
    engine = open_database(settings.database_url)
    with writing(engine) as session:
        audit.append(
            session,
            clock.now(),
            actor="local",
            action="keys.published",
            subject="repository",
            detail={"lines": list(lines), "roles": {role: each.signed.version for role, each in change.items()}},
        )
    engine.dispose()
    return lines


def _root(args: argparse.Namespace) -> bytes:
    return read_root(args.root, args.key[0] if getattr(args, "key", None) else None)


def _trust(args: argparse.Namespace) -> Path:
    return trust_folder(args.trust, args.key[0] if getattr(args, "key", None) else args.root or Path("root.json"))


def _print_review(console: Console, looked: Looked) -> None:
    _print_lines(console, looked.review.lines)
    for role, expires in looked.review.roles.items():
        console.print(f"{escape(role)} would be valid until {expires:%Y-%m-%d}")
    _print_needed(console, looked.needed)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"• {escape(line)}")


def _print_needed(console: Console, found: Sequence[Needed]) -> None:
    console.print(
        table(
            "Signatures",
            ["role", "by", "needs", "of", "signed by"],
            [
                (
                    each.role,
                    each.by,
                    f"{each.threshold}{'' if each.met else ', not met'}",
                    ", ".join(each.people),
                    ", ".join(each.signed) or "nobody",
                )
                for each in found
            ],
        )
    )


def _looked_json(looked: Looked) -> Answer:
    return {
        "lines": list(looked.review.lines),
        "expires": {role: expires.isoformat() for role, expires in looked.review.roles.items()},
        "needed": _needed_json(looked.needed),
    }


def _needed_json(found: Sequence[Needed]) -> list[Answer]:
    return [
        {
            "role": each.role,
            "by": each.by,
            "threshold": each.threshold,
            "people": list(each.people),
            "signed": list(each.signed),
            "met": each.met,
        }
        for each in found
    ]
