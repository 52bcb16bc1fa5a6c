"""`init` at a terminal, with options left out: asks for them in plain words, and shows what it will make first.

Speaks through functions that are passed in; writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_runtime.bundle import check_model
from edge_runtime.bundle.errors import EdgeshipError
from model_server.errors import SettingsError
from model_server.signing.people import MIN_PASSPHRASE, check_passphrase, check_person
from model_server.signing.roles import ROOT_PEOPLE

__all__ = ["Chosen", "Terminal", "guide", "next_steps", "weakness"]

T = TypeVar("T")
MIN_DISTINCT = 6  # characters; "aaaaaaaaaaaa" is long and no passphrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """``ask`` and ``secret`` give what is typed after a prompt; ``secret`` does not show it."""

    say: Callable[[str], None]
    ask: Callable[[str], str]
    secret: Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What `init` is to make. ``database`` None is a file in the folder; ``passphrase`` None comes from elsewhere."""

    models: tuple[str, ...]
    people: tuple[str, ...]
    database: str | None
    passphrase: bytes | None


def guide(
    directory: Path,
    given: Chosen,
    terminal: Terminal,
    *,
    check_database: Callable[[str], None],
    has_passphrase: bool,
) -> Chosen:
    """Ask for what ``given`` lacks, again where an answer cannot be, and for a yes at the end.

    Raises: SettingsError if it is not given, or if ``given`` names what cannot be.
    """
    terminal.say(
        f"A new server in {directory}. Nothing is made before you say yes at the end; Ctrl-C leaves at any point."
    )
    models = (
        _models(given.models) if given.models else _until_right(terminal, _MODELS, lambda text: _models(_names(text)))
    )
    people = (
        _people(given.people) if given.people else _until_right(terminal, _PEOPLE, lambda text: _people(_names(text)))
    )
    database = given.database or _until_right(terminal, _DATABASE, lambda text: _database(text, check_database))
    passphrase = None if has_passphrase else _passphrase(terminal, (*models, *people))
    chosen = Chosen(models=models, people=people, database=database, passphrase=passphrase)
    terminal.say(_summary(directory, chosen))
    if terminal.ask("Make it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SettingsError("not confirmed. Nothing was made")
    return chosen


def weakness(passphrase: str, words: Sequence[str]) -> str | None:
    """Why this is no passphrase for keys that can be tried offline; None if nothing speaks against it."""
    try:
        check_passphrase(passphrase.encode())
    except EdgeshipError as error:
        return str(error)
    low = passphrase.lower()
    if len(set(low)) < MIN_DISTINCT:
        return f"it has fewer than {MIN_DISTINCT} different characters"
    if low.isdigit():
        return "it is a number"
    for word in sorted({*words, "edgeship", "passphrase", "password"}, key=len, reverse=True):
        low = low.replace(word, "")
    if len(low) < MIN_PASSPHRASE // 2:
        return "it is little more than a name or word that is known here"
    return None


def next_steps(directory: Path, models: Sequence[str], people: Sequence[str]) -> str:
    """What to do after `init`, numbered."""
    keys, model = directory / "keys", models[0]
    files = "\n".join(
        f"     {person}: {', '.join(f'{kind}-{person}.pem' for kind in _kinds(people, person))}, root.json"
        for person in people
    )
    return f"""\
Next:
  1. Give each person their files of {keys}, in a way that nobody else can read:
{files}
     Whoever wants a key that never lay here makes it with `edgeship-server keys new`; then `keys rotate`.
  2. Delete them here: rm {keys}/root-*.pem {keys}/targets-*.pem {keys}/releases-*.pem
     The online-*.pem stay: they are the server's own.
  3. Put {directory / "credentials.json"} where only the server's operators can read it. It exists once.
  4. Start the server: edgeship-server serve {directory}
     Devices and managers reach it over HTTPS, so put a proxy with a certificate in front of it.
  5. Build {directory / "root.json"} into your app: it is what devices trust.
  6. The first release, with two people:
     edgeship-server release stage {model}-1.bundle --server https://… --credentials {directory / "credentials.json"}
     edgeship-server release sign {model} 1 --key releases-{people[0]}.pem --bundle {model}-1.bundle
     edgeship-server release sign {model} 1 --key releases-{people[1]}.pem --bundle {model}-1.bundle
     edgeship-server release publish {model} 1, and then: edgeship-server rollout start {model} 1"""


_MODELS = (
    "1 of 4. Which models will it serve? Short names such as exercise, a space between them. More can come later.",
    "Models: ",
)
_PEOPLE = (
    f"2 of 4. Who holds keys? At least {ROOT_PEOPLE} people, since two must sign each release and one may lose a key.\n"
    f"The first {ROOT_PEOPLE} also hold the root keys. First names will do, such as alice bob carol.",
    "People: ",
)
_DATABASE = (
    "3 of 4. Where is its database? Press Enter for a file in the folder (SQLite), which is enough for one server.\n"
    "Or give the address of an empty PostgreSQL database, as in postgresql://user@host/name, without the password.",
    "Database: ",
)
_PASSPHRASE = (
    f"4 of 4. A passphrase for the people's key files, of {MIN_PASSPHRASE} characters or more: some unusual words.\n"
    "Whoever steals a file can try passphrases as fast as they like."
)


def _until_right(terminal: Terminal, question: tuple[str, str], read: Callable[[str], T]) -> T:
    explanation, prompt = question
    terminal.say(f"\n{explanation}")
    while True:
        try:
            return read(terminal.ask(prompt).strip())
        except EdgeshipError as error:
            terminal.say(f"That cannot be: {error}")


def _names(text: str) -> Sequence[str]:
    return text.replace(",", " ").split()


def _models(given: Sequence[str]) -> tuple[str, ...]:
    names = tuple(check_model(name) for name in dict.fromkeys(given))
    if not names:
        raise SettingsError("name one model at least")
    return names


def _people(given: Sequence[str]) -> tuple[str, ...]:
    names = tuple(check_person(name) for name in dict.fromkeys(given))
    if len(names) < ROOT_PEOPLE:
        raise SettingsError(f"that is {len(names)} of the {ROOT_PEOPLE} different people that are needed")
    return names


def _database(text: str, check: Callable[[str], None]) -> str | None:
    if not text:
        return None
    check(text)
    return text


def _passphrase(terminal: Terminal, words: Sequence[str]) -> bytes:
    terminal.say(f"\n{_PASSPHRASE}")
    while True:
        first = terminal.secret("Passphrase: ")
        reason = weakness(first, words)
        if reason is None and terminal.secret("Once more: ") != first:
            reason = "the two differ"
        if reason is None:
            return first.encode()
        terminal.say(f"That cannot be: {reason}")


def _kinds(people: Sequence[str], person: str) -> tuple[str, ...]:
    return ("root", "targets", "releases") if person in people[:ROOT_PEOPLE] else ("targets", "releases")


def _summary(directory: Path, chosen: Chosen) -> str:
    holders = "\n".join(f"    {person}: {', '.join(_kinds(chosen.people, person))}" for person in chosen.people)
    return f"""
This will be made in {directory}:
  models      {", ".join(chosen.models)}
  key files   for each person, under the passphrase; two people sign whatever these keys sign:
{holders}
  the server's own keys, which sign rollouts and freshness and no release
  database    {"a file in the folder" if chosen.database is None else "tables in the PostgreSQL that you named"}
  root.json, which devices trust, settings.toml and credentials.json"""
