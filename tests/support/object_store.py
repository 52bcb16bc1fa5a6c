"""An object store that speaks S3 over HTTP, on a free port: moto's, which keeps objects in memory.

It is no S3, but it is not ours either, and it refuses conditional writes as S3 does. `careless` is the same store
behind a server that drops the conditions, as some stores do that call themselves compatible.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

__all__ = ["CREDENTIALS", "Store", "store"]

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # read from the environment, as from AWS's
_NUMBERS = itertools.count()  # moto keeps one set of buckets for a process
REGION = "eu-central-1"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class Store:
    endpoint: str
    careless_endpoint: str

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint": self.endpoint, "region": REGION}

    @property
    def careless(self) -> dict[str, str]:
        return {"endpoint": self.careless_endpoint, "region": REGION}

    def bucket(self) -> str:
        """A new bucket; its URL with a prefix in it."""
        import boto3

        name = f"edgeship-{next(_NUMBERS)}"
        boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return f"s3://{name}/models"


@contextmanager
def store() -> Iterator[Store]:
    whole = DomainDispatcherApplication(create_backend_app)

    def careless(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        environ.pop("HTTP_IF_MATCH", None)
        answer: Iterable[bytes] = whole(environ, start)
        return answer

    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    with _serving(whole) as endpoint, _serving(careless) as careless_endpoint:
        try:
            yield Store(endpoint, careless_endpoint)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _serving(application: Application) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
