"""`edgeship-server init` at a terminal that asks, and where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model_server.cli import main
from model_server.commands.guide import weakness
from model_server.commands.looking import list_keys
from model_server.signing.roles import releases_role
from tests.support.terminal import typing_at

INIT = [sys.executable, "-m", "model_server.cli", "init"]
PASSPHRASE = "seven purple kettles"


def test_a_new_server_is_made_by_answering_questions(tmp_path: Path) -> None:
    with typing_at([*INIT, "shop"], tmp_path) as terminal:
        terminal.answer("Models: ", "Exercise!")
        terminal.wait_for("That cannot be: 'Exercise!' is not a model name")
        terminal.answer("Models: ", "exercise, gesture")
        terminal.answer("People: ", "alice bob alice")
        terminal.wait_for("that is 2 of the 3 different people")
        terminal.answer("People: ", "alice bob carol dave")
        terminal.answer("Database: ", "postgresql://nobody@127.0.0.1:1/none")
        terminal.wait_for("That cannot be: the database")
        terminal.answer("Database: ", "")
        terminal.answer("Passphrase: ", "short")
        terminal.wait_for("at least 12 characters")
        terminal.answer("Passphrase: ", PASSPHRASE)
        terminal.answer("Once more: ", "another one altogether")
        terminal.wait_for("the two differ")
        terminal.answer("Passphrase: ", PASSPHRASE)
        terminal.answer("Once more: ", PASSPHRASE)
        terminal.wait_for("dave: targets, releases")
        assert not (tmp_path / "shop").exists()
        terminal.answer("Make it? [y/N] ", "y")
        terminal.wait_for("1. Give each person their files")
        terminal.wait_for("alice: root-alice.pem, targets-alice.pem, releases-alice.pem, root.json")
        terminal.wait_for("4. Start the server: edgeship-server serve shop")
        terminal.wait_for("6. The first release")
        assert terminal.end() == 0
    assert PASSPHRASE not in terminal.screen
    owners = {role["role"]: [key["owner"] for key in role["keys"]] for role in list_keys(tmp_path / "shop")["roles"]}  # type: ignore[attr-defined]
    assert owners["root"] == ["alice", "bob", "carol"]
    for model in ("exercise", "gesture"):
        assert owners[releases_role(model)] == ["alice", "bob", "carol", "dave"]


@pytest.mark.parametrize("way", ["no", "interrupt"])
def test_without_a_yes_at_the_end_nothing_is_made(tmp_path: Path, way: str) -> None:
    (tmp_path / "pass").write_text(PASSPHRASE)
    with typing_at([*INIT, "shop", "--passphrase-file", "pass", "--model", "exercise"], tmp_path) as terminal:
        terminal.answer("People: ", "alice bob carol")
        terminal.answer("Database: ", "")
        terminal.wait_for("Make it? [y/N] ")
        if way == "no":
            terminal.press(b"n\n")
            assert terminal.end() == 1
        else:
            assert terminal.interrupt() == 130
    assert ("Nothing was made" in terminal.screen) == (way == "no")
    assert [path.name for path in tmp_path.iterdir()] == ["pass"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_a_terminal_what_is_missing_is_named_and_asked_of_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", str(tmp_path / "shop"), *options])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "--model, --person" in err
    assert out == ""
    assert not (tmp_path / "shop").exists()


def test_at_a_terminal_json_asks_nothing_either(tmp_path: Path) -> None:
    with typing_at([*INIT, "shop", "--json", "--model", "exercise"], tmp_path) as terminal:
        assert terminal.end() == 2
    assert "required: --person" in terminal.screen


@pytest.mark.parametrize(
    ("passphrase", "why"),
    [
        ("correct hors", None),
        (PASSPHRASE, None),
        ("elevenchars", "at least 12"),
        ("aaaaaaaabbbb", "different characters"),
        ("314159265358979", "a number"),
        ("alice-exercise-1", "a name or word"),
        ("Passphrase123", "a name or word"),
    ],
)
def test_a_passphrase_that_is_easily_guessed_is_told_why(passphrase: str, why: str | None) -> None:
    found = weakness(passphrase, ["alice", "exercise"])
    assert (found is None) if why is None else (found is not None and why in found)
