"""A hardware token in software: SoftHSM, whose tokens lie in a temporary folder, reached through PKCS#11."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["PIN", "NoSoftHsm", "softhsm"]

PIN = "4711-token-pin"
LIBRARIES = ("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/local/lib/softhsm", "/opt/homebrew/lib/softhsm")


class NoSoftHsm(Exception):
    """There is no SoftHSM here, or no way to speak to it."""


@contextmanager
def softhsm(folder: Path, tokens: Mapping[str, Mapping[int, str]]) -> Iterator[None]:
    """Tokens by label, each with keys: their id and curve. All have the same PIN. A process has one such folder, since
    the library reads its settings once. Raises NoSoftHsm."""
    library = _library()
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOFTHSM2_CONF", str(settings))
        environment.setenv("PYKCS11LIB", str(library))
        for label in tokens:  # all of them before the library is loaded, which sees no later ones
            _make(label)
        for label, keys in tokens.items():
            for number, curve in keys.items():
                _generate(library, label, number, curve)
        yield


def _library() -> Path:
    if shutil.which("softhsm2-util") is None:
        raise NoSoftHsm("no SoftHSM is installed (Debian and Ubuntu: apt-get install softhsm2)")
    for pattern in LIBRARIES:
        for found in sorted(Path("/").glob(f"{pattern[1:]}/libsofthsm2.so")):
            return found
    raise NoSoftHsm("SoftHSM's library is not where Debian and Homebrew put it")


def _make(label: str) -> None:
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "officer", "--pin", PIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoSoftHsm(f"softhsm2-util failed: {done.stderr or done.stdout}")


def _generate(library: Path, label: str, number: int, curve: str) -> None:
    try:
        import pkcs11
        from pkcs11.util import biginteger
        from pkcs11.util.ec import encode_named_curve_parameters
    except ImportError as error:
        raise NoSoftHsm("python-pkcs11 is not installed: pip install 'edgeship[hsm]'") from error
    token = pkcs11.lib(str(library)).get_token(token_label=label)
    with token.open(user_pin=PIN, rw=True) as session:
        parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
        domain.generate_keypair(store=True, id=biginteger(number))
