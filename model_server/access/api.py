"""People, their keys and sessions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from model_server.access.people import KeyInfo, People, PersonInfo
from model_server.access.roles import parse_role
from model_server.access.service import Access, Caller
from model_server.access.sessions import Sessions
from model_server.web import capped_body, parse_body, route_of

__all__ = ["people_router", "sessions_router"]

MAX_BODY = 8_192
Text = Annotated[str, Field(max_length=64)]
Password = Annotated[SecretStr, Field(max_length=2_048)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionBody(_Body):
    name: Text
    password: Password


class PersonBody(_Body):
    name: Text
    role: Text
    password: Password | None = None


class RoleBody(_Body):
    role: Text


class PasswordBody(_Body):
    password: Password


class KeyBody(_Body):
    name: Text = "key"
    expires_days: int | None = None


def sessions_router(access: Access, sessions: Sessions) -> APIRouter:
    """``/v1/sessions`` and ``/v1/whoami``."""
    router = APIRouter(tags=["sessions"])
    small_body = Depends(capped_body(MAX_BODY))
    known = Depends(_caller(access))

    @router.post("/v1/sessions", status_code=201)
    def log_in(request: Request, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(SessionBody, body)
        address = request.client.host if request.client is not None else "unknown"
        opened = sessions.open(sent.name, sent.password.get_secret_value(), address)
        return {
            "name": opened.name,
            "role": opened.role.value,
            "session_key": opened.key,
            "expires": opened.expires.isoformat(),
        }

    @router.delete("/v1/sessions/own", status_code=204)
    def log_out(caller: Caller = known) -> None:
        sessions.close(caller)

    @router.get("/v1/whoami")
    def whoami(caller: Caller = known) -> dict[str, object]:
        return {"name": caller.name, "role": caller.role, "key": caller.key}

    return router


def people_router(access: Access, people: People) -> APIRouter:
    """``/v1/people``, for admins."""
    router = APIRouter(prefix="/v1/people", tags=["people"])
    small_body = Depends(capped_body(MAX_BODY))
    who = Depends(_caller(access))

    @router.get("")
    def list_people(caller: Caller = who) -> dict[str, object]:
        return {"people": [_person(info) for info in people.everyone()]}

    @router.post("", status_code=201)
    def add(caller: Caller = who, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(PersonBody, body)
        password = None if sent.password is None else sent.password.get_secret_value()
        return _person(people.add(sent.name, parse_role(sent.role), password, caller.actor))

    @router.post("/{name}/role")
    def set_role(name: str, caller: Caller = who, body: bytes = small_body) -> dict[str, object]:
        return _person(people.set_role(name, parse_role(parse_body(RoleBody, body).role), caller.actor))

    @router.post("/{name}/password")
    def set_password(name: str, caller: Caller = who, body: bytes = small_body) -> dict[str, object]:
        password = parse_body(PasswordBody, body).password.get_secret_value()
        return _person(people.set_password(name, password, caller.actor))

    @router.post("/{name}/disable")
    def disable(name: str, caller: Caller = who) -> dict[str, object]:
        return _person(people.disable(name, caller.actor))

    @router.post("/{name}/enable")
    def enable(name: str, caller: Caller = who) -> dict[str, object]:
        return _person(people.enable(name, caller.actor))

    @router.get("/{name}/keys")
    def list_keys(name: str, caller: Caller = who) -> dict[str, object]:
        return {"name": name, "keys": [_key(info) for info in people.keys(name)]}

    @router.post("/{name}/keys", status_code=201)
    def add_key(name: str, caller: Caller = who, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(KeyBody, body)
        made = people.add_key(name, sent.name, sent.expires_days, caller.actor)
        expires = None if made.expires is None else made.expires.isoformat()
        return {"person": name, "id": made.id, "name": made.name, "expires": expires, "api_key": made.key}

    @router.delete("/{name}/keys/{key}", status_code=204)
    def revoke_key(name: str, key: str, caller: Caller = who) -> None:
        people.revoke_key(name, key, caller.actor)

    @router.delete("/{name}/keys", status_code=204)
    def revoke_all(name: str, caller: Caller = who) -> None:
        people.revoke_all(name, caller.actor)

    return router


def _caller(access: Access) -> Callable[[Request], Caller]:
    def dependency(request: Request) -> Caller:
        return access.of_route(route_of(request), request.headers.get("authorization"))

    return dependency


def _person(info: PersonInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "role": info.role.value,
        "has_password": info.has_password,
        "created": info.created.isoformat(),
        "disabled": None if info.disabled is None else info.disabled.isoformat(),
    }


def _key(info: KeyInfo) -> dict[str, object]:
    return {
        "id": info.id,
        "kind": info.kind.value,
        "name": info.name,
        "created": info.created.isoformat(),
        "expires": None if info.expires is None else info.expires.isoformat(),
        "last_used": None if info.last_used is None else info.last_used.isoformat(),
        "state": info.state,
    }
