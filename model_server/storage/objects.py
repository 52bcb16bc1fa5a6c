"""An object store as storage (S3 and what speaks like it), through obstore.

What makes several servers safe here is that the store refuses a create over an existing name (``If-None-Match: *``) and
a replacement of something that was replaced meanwhile (``If-Match``). Not every store that calls itself compatible does
so; `open_objects` tries it, and refuses one that would overwrite in silence.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import from_url

from model_server.errors import LeaseLost, NotStored, SettingsError, StorageUnavailable
from model_server.storage.protocol import CACHE_FRESH, CACHE_IMMUTABLE, Stored, Write

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["ObjectStorage", "open_objects"]

FRESH_S = 1.0  # how old a token may be that `version` gives
IN_MEMORY_BYTES = 8 << 20  # what is written is held in memory up to this size, then in a temporary file
PIECE_BYTES = 1 << 20
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_MISSING = (NotFoundError, FileNotFoundError)


def open_objects(url: str, options: dict[str, str]) -> ObjectStorage:
    """The store at ``url``, as in ``s3://bucket/prefix``. ``options`` are obstore's names (``endpoint``, ``region``);
    credentials come from the environment or the machine, as for AWS's own tools.

    Raises: SettingsError for an address that is none, or a store that does not refuse what it must; StorageUnavailable.
    """
    client = {"timeout": "30s", "connect_timeout": "5s", "allow_http": options.get("endpoint", "").startswith("http:")}
    try:
        store = from_url(url, config=dict(options), client_options=client, retry_config=RETRIES)  # type: ignore[call-overload]
    except (BaseError, ValueError, TypeError) as error:
        raise SettingsError(f"the storage {url} cannot be opened: {_first_line(error)}") from error
    storage = ObjectStorage(store, url)
    _check_conditions(storage, url)
    return storage


def _check_conditions(storage: ObjectStorage, url: str) -> None:
    """Try both conditions on an object of our own."""
    name = f".probe/{secrets.token_hex(8)}"
    try:
        created = storage.create(name, lambda out: out.write(b"1"))
        again = storage.create(name, lambda out: out.write(b"2"))
        before = storage.read(name).version
        storage.replace(name, b"3", before)
        try:
            storage.replace(name, b"4", before)
        except LeaseLost:
            replaced = False
        else:
            replaced = True
    finally:
        storage.remove(name)
    if not created or again or replaced:
        raise SettingsError(
            f"the storage {url} overwrites what it was asked not to (it ignores If-None-Match or If-Match): two "
            "servers would destroy each other's metadata there. Use a store that has conditional writes, or a folder"
        )


class ObjectStorage:
    """`Storage` in an object store. Threads may share it."""

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self._url = url
        self._versions: dict[str, tuple[float, str]] = {}

    def read(self, name: str) -> Stored:
        with self._asking(name):
            result = obstore.get(self._store, name)
            return Stored(data=bytes(result.bytes()), version=_token(result.meta))

    def version(self, name: str) -> str:
        known = self._versions.get(name)
        now = time.monotonic()
        if known is not None and now < known[0]:
            return known[1]
        with self._asking(name):
            version = _token(obstore.head(self._store, name))
        self._versions[name] = (now + FRESH_S, version)
        return version

    def size(self, name: str) -> int | None:
        try:
            with self._asking(name):
                return int(obstore.head(self._store, name)["size"])
        except NotStored:
            return None

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        options: Any = {}
        if start or end is not None:
            options = {"options": {"range": {"offset": start} if end is None else (start, end)}}
        with self._asking(name):
            for piece in obstore.get(self._store, name, **options).stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

    def create(self, name: str, write: Write) -> bool:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as out:
            write(out)  # type: ignore[arg-type]
            out.seek(0)
            try:
                with self._asking(name):
                    # In one request, since several would have no condition.
                    obstore.put(self._store, name, out, mode="create", use_multipart=False, attributes=_headers(name))
            except AlreadyExistsError:
                return False
        self._versions.pop(name, None)
        return True

    def replace(self, name: str, data: bytes, expected: str | None = None) -> str:
        mode: Any = "overwrite" if expected is None else {"e_tag": expected}
        try:
            with self._asking(name):
                put = obstore.put(self._store, name, data, mode=mode, use_multipart=False, attributes=_headers(name))
        except PreconditionError as error:
            raise LeaseLost(f"{name} was replaced by another server meanwhile") from error
        self._versions.pop(name, None)
        return _token(put)

    def copy(self, source: str, name: str) -> None:
        if self.size(name) is not None:
            return  # only targets are copied, and their names hold the digest
        with self._asking(source):
            obstore.copy(self._store, source, name)

    def remove(self, name: str) -> None:
        try:
            with self._asking(name):
                obstore.delete(self._store, name)
        except NotStored:
            return

    def names(self, prefix: str) -> Iterator[str]:
        with self._asking(prefix):
            for found in obstore.list(self._store, prefix.rstrip("/")):
                yield from (str(each["path"]) for each in found)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile(prefix="edgeship-blob-") as file:
            for piece in self.pieces(name):
                file.write(piece)
            file.flush()
            yield Path(file.name)

    def path(self, name: str) -> Path | None:
        return None

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """The store's errors as ours. A refused condition is for the caller to judge."""
        try:
            yield
        except _MISSING as error:
            raise NotStored(f"{name} is not in the storage") from error
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError) as error:
            raise StorageUnavailable(f"the storage {self._url} does not answer: {_first_line(error)}") from error


def _headers(name: str) -> dict[str, str]:
    """What a CDN in front of the store passes on: as the server's own answers, see docs/spec/static-files.md."""
    media = "application/json" if name.endswith(".json") else "application/octet-stream"
    fresh = name.endswith("/timestamp.json")
    return {"Content-Type": media, "Cache-Control": CACHE_FRESH if fresh else CACHE_IMMUTABLE}


def _token(meta: Any) -> str:
    tag = meta["e_tag"]
    if not isinstance(tag, str):
        raise StorageUnavailable("the storage gives no ETag, without which nothing can be replaced safely")
    return tag


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300]
