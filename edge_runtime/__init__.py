"""Edgeship's runtime: run a model on the device, keep it up to date, ask the cloud when that is better.

Importing this package loads no engine, numpy, tuf or httpx; each name below loads its module when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.device import Device
    from edge_runtime.device_state import DeviceState
    from edge_runtime.enrolment.options import Enrolment
    from edge_runtime.errors import (
        CloudError,
        ConfigurationError,
        EdgeshipError,
        EngineError,
        InputError,
        NoAnswer,
        NoModel,
        Outcome,
        RuntimeClosed,
        StoreError,
        UpdateError,
    )
    from edge_runtime.factory import Factory
    from edge_runtime.hybrid.breaker import BreakerPolicy
    from edge_runtime.hybrid.policy import Mode, RoutingPolicy
    from edge_runtime.prediction import Prediction, Reason, Source
    from edge_runtime.runtime import EdgeRuntime
    from edge_runtime.session import Session
    from edge_runtime.update.conditions import UpdateRules, Window
    from edge_runtime.update.sideload import Sideloaded
    from edge_runtime.update.updater import CheckResult

__version__ = "0.1.0"

__all__ = [
    "BreakerPolicy",
    "CheckResult",
    "CloudError",
    "ConfigurationError",
    "Device",
    "DeviceState",
    "EdgeRuntime",
    "EdgeshipError",
    "EngineError",
    "Enrolment",
    "Factory",
    "InputError",
    "Mode",
    "NoAnswer",
    "NoModel",
    "Outcome",
    "Prediction",
    "Reason",
    "RoutingPolicy",
    "RuntimeClosed",
    "Session",
    "Sideloaded",
    "Source",
    "StoreError",
    "UpdateError",
    "UpdateRules",
    "Window",
    "__version__",
]

_HOME = {
    "BreakerPolicy": "hybrid.breaker",
    "CheckResult": "update.updater",
    "CloudError": "errors",
    "ConfigurationError": "errors",
    "Device": "device",
    "DeviceState": "device_state",
    "EdgeRuntime": "runtime",
    "EdgeshipError": "errors",
    "EngineError": "errors",
    "Enrolment": "enrolment.options",
    "Factory": "factory",
    "InputError": "errors",
    "Mode": "hybrid.policy",
    "NoAnswer": "errors",
    "NoModel": "errors",
    "Outcome": "errors",
    "Prediction": "prediction",
    "Reason": "prediction",
    "RoutingPolicy": "hybrid.policy",
    "RuntimeClosed": "errors",
    "Session": "session",
    "Sideloaded": "update.sideload",
    "Source": "prediction",
    "StoreError": "errors",
    "UpdateError": "errors",
    "UpdateRules": "update.conditions",
    "Window": "update.conditions",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
