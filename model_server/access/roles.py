"""What a person's role allows, and which permission each route needs. Data and two functions; no I/O.

A route that is not in `ROUTES` is refused to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from model_server.errors import MalformedRequest

__all__ = ["DEVICE_PERMISSIONS", "ROUTES", "Permission", "Role", "least_role", "may", "parse_role"]


class Role(StrEnum):
    """From the least to the most; each may do all that the one before may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASE_MANAGER = "release-manager"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


class Permission(StrEnum):
    ANYBODY = "anybody"  # without a key: opening a session, enrolling
    READ = "read"
    OPERATE = "operate"  # steer a rollout that runs, and approve a baseline of drift
    RELEASE = "release"  # what ends in signed metadata, and starting a rollout
    ADMINISTER = "administer"  # people, their keys, and the tokens of devices
    DEVICE = "device"  # what a device sends: outcomes, telemetry, inference


_LEAST: Mapping[Permission, Role] = {
    Permission.READ: Role.VIEWER,
    Permission.OPERATE: Role.OPERATOR,
    Permission.RELEASE: Role.RELEASE_MANAGER,
    Permission.ADMINISTER: Role.ADMIN,
    Permission.DEVICE: Role.ADMIN,
}
DEVICE_PERMISSIONS = frozenset({Permission.DEVICE})

ROUTES: Mapping[str, Permission] = {
    "GET /v1/status": Permission.READ,
    "GET /v1/devices": Permission.READ,
    # Releases
    "GET /v1/releases/{model}": Permission.READ,
    "GET /v1/releases/{model}/{release}": Permission.READ,
    "GET /v1/releases/{model}/{release}/metadata": Permission.READ,
    "GET /v1/releases/{model}/{release}/files/{file}": Permission.READ,
    "GET /v1/releases/{model}/{release}/bundle": Permission.READ,
    "POST /v1/releases": Permission.RELEASE,
    "DELETE /v1/releases/{model}/{release}": Permission.RELEASE,
    "POST /v1/releases/{model}/{release}/signatures": Permission.RELEASE,
    "POST /v1/releases/{model}/{release}/publish": Permission.RELEASE,
    "GET /v1/jobs": Permission.READ,
    "GET /v1/jobs/{job}": Permission.READ,
    "DELETE /v1/jobs/{job}": Permission.RELEASE,
    # Policies: revocations, floors, renewals
    "GET /v1/policies/{model}": Permission.READ,
    "GET /v1/policies/{model}/metadata": Permission.READ,
    "GET /v1/policies/{model}/document": Permission.READ,
    "POST /v1/policies/{model}": Permission.RELEASE,
    "DELETE /v1/policies/{model}": Permission.RELEASE,
    "POST /v1/policies/{model}/signatures": Permission.RELEASE,
    "POST /v1/policies/{model}/publish": Permission.RELEASE,
    # Rollouts. Stopping a bad one at night must not need a release manager.
    "GET /v1/rollouts": Permission.READ,
    "GET /v1/rollouts/{channel}/{model}": Permission.READ,
    "POST /v1/rollouts/{channel}/{model}": Permission.RELEASE,
    "POST /v1/rollouts/{channel}/{model}/{action}": Permission.OPERATE,
    # Drift
    "GET /v1/drift/{model}": Permission.READ,
    "POST /v1/drift/{model}/baseline": Permission.OPERATE,
    "GET /v1/telemetry/{model}/days": Permission.READ,
    # People
    "POST /v1/sessions": Permission.ANYBODY,
    "DELETE /v1/sessions/own": Permission.READ,
    "GET /v1/whoami": Permission.READ,
    "GET /v1/people": Permission.ADMINISTER,
    "POST /v1/people": Permission.ADMINISTER,
    "POST /v1/people/{name}/role": Permission.ADMINISTER,
    "POST /v1/people/{name}/password": Permission.ADMINISTER,
    "POST /v1/people/{name}/disable": Permission.ADMINISTER,
    "POST /v1/people/{name}/enable": Permission.ADMINISTER,
    "GET /v1/people/{name}/keys": Permission.ADMINISTER,
    "POST /v1/people/{name}/keys": Permission.ADMINISTER,
    "DELETE /v1/people/{name}/keys": Permission.ADMINISTER,
    "DELETE /v1/people/{name}/keys/{key}": Permission.ADMINISTER,
    # Devices
    "POST /v1/outcomes": Permission.DEVICE,
    "POST /v1/devices": Permission.ANYBODY,  # the token in the body lets a device in
    "GET /v1/enrolment/devices": Permission.READ,
    "POST /v1/enrolment/devices/{device}/revoke": Permission.ADMINISTER,
    "POST /v1/enrolment/devices/{device}/reset": Permission.ADMINISTER,
    "GET /v1/enrolment/tokens": Permission.READ,
    "POST /v1/enrolment/tokens": Permission.ADMINISTER,
    "POST /v1/enrolment/tokens/{token}/revoke": Permission.ADMINISTER,
}


def least_role(permission: Permission) -> Role | None:
    """The lowest role that has it; None where no key is needed."""
    return _LEAST.get(permission)


def may(role: Role, permission: Permission) -> bool:
    least = _LEAST.get(permission)
    return least is None or role.rank >= least.rank


def parse_role(text: str) -> Role:
    """Raises: MalformedRequest for a word that is no role."""
    try:
        return Role(text)
    except ValueError:
        raise MalformedRequest(f"{ascii(text)[:40]} is no role: use {', '.join(Role)}") from None
