"""The grammar of `edgeship-server keys`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_server.signing.kinds import KINDS, ONLINE_USES
from model_server.signing.places import key_place

__all__ = ["add_keys_parser"]


def add_keys_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser(
        "keys",
        help="who may sign what",
        description="Who may sign what. A change is made as a file (add, remove, rotate, revoke, renew, "
        "rotate-online), signed by the people it names on their own machines (sign), and published whole (publish).",
    ).add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _json(keys.add_parser("list", help="every role with its threshold and its people"))
    listing.add_argument("directory", type=Path, metavar="DIR")
    listing.set_defaults(run="keys list")
    _people(keys)
    _changes(keys)
    _signing(keys)


def _people(keys: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    new = _command(keys, "new", "make your own keys; hand over PERSON.public.json")
    new.add_argument("person", metavar="PERSON")
    new.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the key files go")
    _roles(new, "default: targets and releases, or those of --uri alone")
    new.add_argument(
        "--uri",
        action="append",
        type=_by_role,
        default=[],
        metavar="ROLE=URI",
        help="a key that lives elsewhere, as in releases=hsm:2?label=alice; repeat for more",
    )
    new.add_argument(
        "--public",
        action="append",
        type=_by_role,
        default=[],
        metavar="ROLE=FILE",
        help="its public half in PEM, where the URI's signer does not tell it",
    )
    new.add_argument("--passphrase-file", type=Path, help="12 characters or more; asked for if left out")
    _pin(new)

    add = _change(keys, "add", "let a person sign")
    add.add_argument("public", type=Path, metavar="PUBLIC.json", help="what `keys new` wrote on their machine")
    _roles(add, "default: all that the file has keys for")
    _models(add)
    remove = _change(keys, "remove", "take a person's keys away")
    remove.add_argument("person", metavar="PERSON")
    _roles(remove, "default: all")
    _models(remove)
    _replacement(remove)
    rotate = _change(keys, "rotate", "put a person's new keys in the place of their old ones")
    rotate.add_argument("public", type=Path, metavar="PUBLIC.json")
    _roles(rotate, "default: all that the file has keys for")
    revoke = _change(keys, "revoke", "take one key away wherever it is: it was lost or stolen")
    revoke.add_argument("keyid", metavar="KEYID", help="the first 8 characters or more, as `keys list` shows it")
    _replacement(revoke)


def _changes(keys: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    renew = _change(keys, "renew", "sign a role again before it expires")
    renew.add_argument("renewed", metavar="ROLE", help="root, targets or releases-MODEL")
    online = _change(keys, "rotate-online", "give the server another key")
    online.add_argument("use", choices=ONLINE_USES)
    online.add_argument("--uri", help="one that lives elsewhere; settings.toml must name it already")
    online.add_argument("--public", type=Path, metavar="FILE", help="its public half in PEM, if no signer tells it")
    delegate = _command(keys, "delegate", "add a model, with the key files that are at hand")
    delegate.add_argument("model", metavar="MODEL")
    _directory(delegate)
    for kind in ("targets", "releases"):
        delegate.add_argument(
            f"--{kind}-key",
            action="append",
            type=key_place,
            default=[],
            metavar="FILE|URI",
            help=f"default: DIR/keys/{kind}-*",
        )
    delegate.add_argument("--passphrase-file", type=Path)
    _pin(delegate)


def _signing(keys: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for action, text in (
        ("show", "what a change would do, and who has signed it"),
        ("sign", "review and sign a change"),
    ):
        command = _command(keys, action, text)
        command.add_argument("change", type=Path, metavar="CHANGE.json")
        if action == "sign":
            command.add_argument(
                "--key",
                action="append",
                type=key_place,
                required=True,
                metavar="FILE|URI",
                help="your key, as in hsm:3?label=alice; repeat for more",
            )
            command.add_argument("--passphrase-file", type=Path, help="opens the key files; asked for if left out")
            _pin(command)
            command.add_argument("--yes", action="store_true", help="sign without asking; needed without a terminal")
        command.add_argument(
            "--root", type=Path, help="the root you trust (default: root.json beside the key, or here)"
        )
        command.add_argument("--trust", type=Path, help="remembers what was verified (default: beside the key)")
        command.add_argument(
            "--accept-expired", action="store_true", help="a role has expired, and is signed again by this"
        )
    publish = _command(keys, "publish", "put a change that enough people signed in front of devices")
    publish.add_argument("changes", type=Path, nargs="+", metavar="CHANGE.json", help="copies of one change are merged")
    _directory(publish)


def _command(
    keys: argparse._SubParsersAction[argparse.ArgumentParser], action: str, text: str
) -> argparse.ArgumentParser:
    parser = _json(keys.add_parser(action, help=text))
    parser.set_defaults(run="keys")
    return parser


def _change(
    keys: argparse._SubParsersAction[argparse.ArgumentParser], action: str, text: str
) -> argparse.ArgumentParser:
    parser = _command(keys, action, text)
    _directory(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the change (default: ACTION-TIME.change.json here)")
    return parser


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", dest="directory", type=Path, required=True, metavar="DIR", help="the server's folder")


def _roles(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--role", action="append", choices=KINDS, help=f"repeat for more; {default}")


def _pin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pin-file", type=Path, help="the PIN of keys on a token; asked for if left out")


def _by_role(text: str) -> tuple[str, str]:
    role, _, value = text.partition("=")
    if role not in KINDS or not value:
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with {', '.join(f'{kind}=' for kind in KINDS)}")
    return role, value


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append", help="of the releases role; repeat for more (default: every model)")


def _replacement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--add", action="append", type=Path, metavar="PUBLIC.json", help="somebody who comes in the same change"
    )


def _json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
