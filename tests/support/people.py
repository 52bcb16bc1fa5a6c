"""People of a server, and the keys that they hold."""

from __future__ import annotations

import httpx
from argon2 import PasswordHasher
from sqlalchemy import Engine

from model_server.access.passwords import Passwords
from model_server.access.people import People
from model_server.access.roles import Role
from tests.support.server import Running, SteppedClock

__all__ = ["LATER_HASHER", "QUICK_HASHER", "headers", "key_of", "people_of"]

# The real parameters are slow on purpose.
QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
LATER_HASHER = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1)


def people_of(engine: Engine, clock: SteppedClock) -> People:
    return People(engine, clock, Passwords(QUICK_HASHER))


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def key_of(server: Running, role: Role, name: str | None = None) -> str:
    """The API key of a new person."""
    name = name or f"some-{role}"
    _done(server.admin.post("/v1/people", json={"name": name, "role": role}))
    return str(_done(server.admin.post(f"/v1/people/{name}/keys")).json()["api_key"])


def _done(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, answer.text
    return answer
