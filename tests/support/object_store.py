"""An object store that speaks S3 over HTTP, on a free port: moto's, which keeps objects in memory.

It is no S3, but it is not ours either, and it refuses conditional writes as S3 does. ``careless`` is the same store
behind a server that drops the conditions, as some stores do that call themselves compatible.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

__all__ = ["Store", "store"]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".tools" / "object-store" / "bin" / "python"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # read from the environment, as from AWS's
REGION = "eu-central-1"


@dataclass
class Store:
    endpoint: str
    careless_endpoint: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint": self.endpoint, "region": REGION}

    @property
    def careless(self) -> dict[str, str]:
        return {"endpoint": self.careless_endpoint, "region": REGION}

    def bucket(self) -> str:
        """A new bucket; its URL with a prefix in it."""
        name = f"edgeship-{next(self._numbers)}"
        body = (
            f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        httpx.put(f"{self.endpoint}/{name}", content=body).raise_for_status()
        return f"s3://{name}/models"


@contextmanager
def store() -> Iterator[Store]:
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    process = subprocess.Popen(
        [PYTHON, Path(__file__).with_name("object_store_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Store(*json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
