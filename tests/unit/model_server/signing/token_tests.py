"""Keys that live elsewhere: on a token (SoftHSM, through PKCS#11) and behind other URIs; whole ceremonies with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP521R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer
from tuf.api.metadata import Metadata, Targets

from edge_runtime.errors import Outcome
from edge_runtime.update.plan import PARTS, State
from edge_runtime.update.rules import ROLE_FIELD
from model_server.cli import main
from model_server.errors import KeyRejected, KeyWithoutRole, SignerFailed
from model_server.installation import open_publisher
from model_server.settings import SETTINGS_FILE, Settings, load_settings
from model_server.signing.algorithms import key_of
from model_server.signing.keys import sign_metadata
from model_server.signing.people import own_key
from model_server.signing.roles import PERSON_FIELD
from model_server.signing.uris import KeyUri, open_uri
from tests.support.ceremonies import Ceremony
from tests.support.managers import sign, stage
from tests.support.plans import PLAN, client
from tests.support.server import SteppedClock, make_bundle, make_folder, running
from tests.support.softhsm import PIN
from tests.support.watch import watch

ALICE = "hsm:2?label=alice"
SERVER = "hsm:2?label=server"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def ceremony(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ceremony:
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "pin").write_text(PIN + "\n")
    return Ceremony(settings, folder, capsys)


class Asked:
    """Gives one PIN, and counts how often it is asked for it."""

    def __init__(self, pin: str = PIN) -> None:
        self.pin = pin
        self.times = 0

    def __call__(self, name: str) -> str:
        assert name == "pin"
        self.times += 1
        return self.pin


def in_clear(path: Path, private: PrivateKeyTypes) -> tuple[str, Path]:
    """A key file without a passphrase as a URI, and its public half in PEM."""
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = path.with_suffix(".pub")
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return f"file2:{path}", public


def typed(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == code
    out, err = capsys.readouterr()
    return err if code else out


def give_alice_her_token(ceremony: Ceremony) -> None:
    """Her releases key becomes the one on her token."""
    new = ceremony.run(
        "new",
        "alice",
        "--out",
        ceremony.folder / "alice",
        "--uri",
        f"releases={ALICE}",
        "--pin-file",
        ceremony.folder / "pin",
    )
    assert (new["keys"], new["uris"]) == ([], {"releases": ALICE})
    change = ceremony.propose("rotate", new["public"])
    for person in ("bob", "carol"):
        ceremony.sign(change, ceremony.key("targets", person))
    lines = ceremony.publish(change)["lines"]
    assert any("alice gets a new key" in line and "ecdsa-sha2-nistp256" in line for line in lines)


@pytest.mark.usefixtures("tokens")
def test_a_device_installs_a_release_that_a_manager_signed_with_a_token(
    ceremony: Ceremony, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_alice_her_token(ceremony)
    bundle = make_bundle(tmp_path / "1.bundle", 1, data=b"model 1" * 1000)
    with running(settings, SteppedClock()) as server:
        assert stage(server, bundle).status_code == 201
        options = ["--server", server.url, "--credentials", settings.directory / "credentials.json"]
        options += [
            "--root",
            settings.directory / "root.json",
            "--trust",
            tmp_path / "trust",
            "--bundle",
            bundle,
            "--yes",
        ]
        command = ["release", "sign", "exercise", 1, "--key", ALICE, *options]
        refused = typed(capsys, *command, code=1)
        assert "there is no terminal to ask for the pin of hsm:2?label=alice: give --pin-file" in refused
        assert "signed by alice" in typed(capsys, *command, "--pin-file", ceremony.folder / "pin")
        sign(server, settings, "bob", bundle)
        assert server.admin.post("/v1/releases/exercise/1/publish").status_code == 200
        signed = server.services.repository.role("releases-exercise").signed
        assert signed.unrecognized_fields == {ROLE_FIELD: "releases-exercise"}  # no new version forgets it
        open_publisher(settings, SteppedClock()).put_plan(replace(PLAN, share=PARTS, state=State.COMPLETE))
        with watch(server, settings, tmp_path / "device") as (_, updater):
            result = updater.check()
            assert (result.outcome, result.active) == (Outcome.INSTALLED, 1), result.detail


@pytest.mark.usefixtures("tokens")
def test_the_servers_timestamp_key_moves_to_a_token_and_renews(
    ceremony: Ceremony, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SteppedClock()
    (settings.keys_dir / "online.pin").write_text(PIN)
    command = ["rotate-online", "timestamp", "--uri", SERVER, "--dir", settings.directory]
    refused = ceremony.run(*command, code=1)
    assert f'timestamp = "{SERVER}" under [signing]' in refused
    name_in_settings(settings, "timestamp", SERVER)
    settings = load_settings(settings.directory)
    before = open_publisher(settings, clock)  # its file signs until the change is published
    change = ceremony.propose("rotate-online", "timestamp", "--uri", SERVER)
    ceremony.signed_by(change, ["alice", "bob"], "root")
    ceremony.publish(change)
    clock.advance(hours=13)
    assert before.renew() == ("timestamp",)
    (settings.keys_dir / "online-timestamp.pem").unlink()
    publisher = open_publisher(settings, clock)
    clock.advance(hours=13)
    assert publisher.renew() == ("timestamp",)
    client(settings, tmp_path / "client").refresh()
    # The token is pulled out: nothing is published, and it is said which key is missing.
    version = publisher.repository.timestamp().signed.version
    clock.advance(hours=13)
    with monkeypatch.context() as pulled:
        pulled.delenv("PYKCS11LIB")
        with pytest.raises(SignerFailed, match=r"hsm:2\?label=server did not sign"):
            publisher.renew()
        with pytest.raises(KeyRejected, match="PYKCS11LIB"):
            open_publisher(settings, clock)
    assert publisher.repository.timestamp().signed.version == version
    assert publisher.renew() == ("timestamp",)


def name_in_settings(settings: Settings, use: str, uri: str) -> None:
    path = settings.directory / SETTINGS_FILE
    path.write_text(path.read_text().replace("[signing]\n", f"[signing]\n{use} = {json.dumps(uri)}\n"))


@pytest.mark.usefixtures("tokens")
def test_a_wrong_pin_is_tried_once_and_never_repeated_in_an_error() -> None:
    _, key = own_key(KeyUri(uri=ALICE, secret=Asked()), None, PERSON_FIELD, "alice")
    _, other = own_key(KeyUri(uri="hsm:3?label=alice", secret=Asked()), None, PERSON_FIELD, "alice")
    wrong = Asked("0000-wrong")
    with pytest.raises(KeyRejected, match="the PIN is wrong") as refused:
        open_uri(KeyUri(uri=ALICE, secret=wrong), [key, other])
    assert wrong.times == 1
    assert wrong.pin not in f"{refused.value!r} {KeyUri(uri=ALICE, secret=wrong)!r}"
    assert open_uri(KeyUri(uri=ALICE, secret=Asked()), [other, key]).public_key == key


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("hsm:2?label=nobody", "No PKCS#11 token found for label nobody"),
        ("hsm:9?label=alice", "could not find ECDSA private key"),
        ("hsm:x?label=alice", "invalid literal"),
    ],
)
def test_a_token_or_a_key_that_is_not_there_is_named(uri: str, says: str) -> None:
    _, key = own_key(KeyUri(uri=ALICE, secret=Asked()), None, PERSON_FIELD, "alice")
    with pytest.raises(KeyRejected, match=says) as refused:
        open_uri(KeyUri(uri=uri, secret=Asked()), [key])
    assert PIN not in str(refused.value)


@pytest.mark.usefixtures("tokens")
def test_a_token_whose_key_is_not_in_the_metadata_is_refused() -> None:
    _, key = own_key(KeyUri(uri=SERVER, secret=Asked()), None, PERSON_FIELD, "bob")
    ed25519 = key_of(new_ec(SECP256R1()).public_key(), None, PERSON_FIELD, "carol")
    with pytest.raises(KeyWithoutRole, match="not a key that the signed metadata allows"):
        open_uri(KeyUri(uri=ALICE, secret=Asked()), [key, ed25519])


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nohsm:2", "no signer of the scheme 'nohsm' is known, but awskms:, azurekms:,"),
        ("gcpkms:projects/p", r"pip install 'securesystemslib\[gcpkms\]'"),
        ("hv:key/1", r"pip install 'securesystemslib\[vault\]'"),
        ("file2:/nowhere/key.pem", "give it in PEM with --public"),
    ],
)
def test_what_a_uri_lacks_is_named(uri: str, says: str) -> None:
    with pytest.raises(KeyRejected, match=says):
        own_key(KeyUri(uri=uri, secret=Asked()), None, PERSON_FIELD, "alice")


@pytest.mark.parametrize("private", [new_rsa(65537, 2048), new_ec(SECP256R1())], ids=["rsa", "ecdsa"])
def test_keys_of_other_kinds_join_sign_and_are_verified(
    ceremony: Ceremony, settings: Settings, tmp_path: Path, private: PrivateKeyTypes
) -> None:
    uri, pem = in_clear(tmp_path / "dave.pem", private)
    new = ["new", "dave", "--out", ceremony.folder / "dave", "--uri", f"targets={uri}"]
    assert "--public" in ceremony.run(*new, code=1)
    change = ceremony.propose("add", ceremony.run(*new, "--public", f"targets={pem}")["public"])
    ceremony.signed_by(change, ["alice", "bob"], "root")
    ceremony.publish(change)
    renewal = ceremony.propose("renew", "targets")
    for key in (uri, ceremony.key("targets", "carol")):
        sign_with(ceremony, renewal, [key])
    ceremony.publish(renewal)
    client(settings, tmp_path / "client").refresh()


class Exchanged(Signer):
    """A signer of somebody else's making, whose key is exchanged for another after its first signature."""

    keys: ClassVar = [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()]
    signed: ClassVar[list[bytes]] = []

    def __init__(self, key: Key) -> None:
        self._key = key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> Exchanged:
        return cls(public_key)

    @property
    def public_key(self) -> Key:
        return self._key

    def sign(self, payload: bytes) -> Signature:
        self.signed.append(payload)
        return self.keys[len(self.signed) > 1].sign(payload)


def test_a_registered_signer_is_used_and_a_key_exchanged_behind_it_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "ours", Exchanged)
    signer = open_uri(KeyUri(uri="ours:1", secret=Asked()), [Exchanged.keys[0].public_key])
    metadata = Metadata(Targets())
    with pytest.raises(SignerFailed, match="ours:1 signed with another key than"):
        sign_metadata(metadata, signer)
    assert metadata.signatures == {}
    assert [payload == metadata.signed_bytes for payload in Exchanged.signed] == [False, True]


def sign_with(ceremony: Ceremony, change: Path, keys: Sequence[object]) -> Any:
    chosen = [option for key in keys for option in ("--key", key)]
    root = ["--root", ceremony.settings.directory / "root.json", "--trust", ceremony.folder / "any.trust"]
    return ceremony.run("sign", change, *chosen, "--passphrase-file", ceremony.passphrase, *root, "--yes")


@pytest.mark.parametrize("private", [new_rsa(65537, 1024), new_ec(SECP521R1())])
def test_weak_and_unusual_keys_never_join(ceremony: Ceremony, tmp_path: Path, private: PrivateKeyTypes) -> None:
    uri, pem = in_clear(tmp_path / "dave.pem", private)
    new = ["new", "dave", "--out", ceremony.folder / "dave", "--uri", f"targets={uri}", "--public", f"targets={pem}"]
    assert "is of no kind that may sign here" in ceremony.run(*new, code=1)
    assert not (ceremony.folder / "dave").exists()


def test_a_public_half_that_is_not_the_keys_own_is_not_handed_over(ceremony: Ceremony, tmp_path: Path) -> None:
    uri, _ = in_clear(tmp_path / "dave.pem", new_ec(SECP256R1()))
    _, pem = in_clear(tmp_path / "other.pem", new_ec(SECP256R1()))
    new = ["new", "dave", "--out", ceremony.folder / "dave", "--uri", f"targets={uri}", "--public", f"targets={pem}"]
    assert "KeyWithoutRole" in ceremony.run(*new, code=1)


def test_settings_name_uris_and_never_files(settings: Settings) -> None:
    name_in_settings(settings, "timestamp", "keys/online-timestamp.pem")
    with pytest.raises(Exception, match="needs no line here"):
        load_settings(settings.directory)
