import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from model_server.errors import KeyRejected
from model_server.signing.keys import open_signer, personal_signer, read_passphrase, save_key
from tests.support.keys import new_private


def test_a_key_file_opens_with_its_passphrase_under_the_id_that_metadata_gives_it(tmp_path: Path) -> None:
    private = new_private()
    key = personal_signer(private, "alice").public_key
    save_key(tmp_path / "k.pem", private, b"secret")
    assert open_signer(tmp_path / "k.pem", b"secret", [key]).public_key == key


def test_a_key_file_is_encrypted_and_only_its_owners(tmp_path: Path) -> None:
    private = new_private()
    save_key(tmp_path / "k.pem", private, b"secret")
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    assert private.private_bytes_raw() not in (tmp_path / "k.pem").read_bytes()
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600


def test_an_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    save_key(tmp_path / "k.pem", new_private(), b"secret")
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(KeyRejected, match="never overwritten"):
        save_key(tmp_path / "k.pem", new_private(), b"secret")
    assert (tmp_path / "k.pem").read_bytes() == before


def test_a_wrong_passphrase_is_refused_without_a_trace_of_it(tmp_path: Path) -> None:
    save_key(tmp_path / "k.pem", new_private(), b"secret")
    with pytest.raises(KeyRejected, match="wrong passphrase") as error:
        open_signer(tmp_path / "k.pem", b"guess", [])
    assert "guess" not in str(error.value)


def test_a_key_that_the_role_does_not_have_is_refused(tmp_path: Path) -> None:
    save_key(tmp_path / "k.pem", new_private(), b"secret")
    with pytest.raises(KeyRejected, match="not a key that"):
        open_signer(tmp_path / "k.pem", b"secret", [personal_signer(new_private(), "bob").public_key])


@pytest.mark.parametrize("content", [b"", b"not a key", b"x" * 20_000])
def test_what_is_not_a_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.pem").write_bytes(content)
    with pytest.raises(KeyRejected):
        open_signer(tmp_path / "k.pem", b"secret", [])


def test_a_key_in_clear_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    clear = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "k.pem").write_bytes(clear)
    with pytest.raises(KeyRejected):
        open_signer(tmp_path / "k.pem", b"secret", [])


def test_a_missing_key_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KeyRejected, match=r"none\.pem"):
        open_signer(tmp_path / "none.pem", b"secret", [])


def test_a_passphrase_file_is_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"secret words\r\nnot this\n")
    assert read_passphrase(tmp_path / "p") == b"secret words"
    (tmp_path / "p").write_bytes(b"\n")
    with pytest.raises(KeyRejected):
        read_passphrase(tmp_path / "p")
