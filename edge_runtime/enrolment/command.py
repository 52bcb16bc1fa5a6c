"""Enrolling without a runtime: `edgeship-device enrol`, and tools that sign for a device."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.clock import SystemClock
from edge_runtime.device import Device
from edge_runtime.disk import RealDisk
from edge_runtime.enrolment.enroller import Enroller
from edge_runtime.enrolment.key import check_available
from edge_runtime.enrolment.record import Record
from edge_runtime.errors import ConfigurationError
from edge_runtime.store import Store
from edge_runtime.waits import Purpose, Waits

__all__ = ["enrol", "open_enroller"]


def enrol(folder: Path, server: str, root: bytes, token: str) -> Record:
    """Enrol the device whose state is in ``folder``, which is made if need be; what became of it.

    Raises: ConfigurationError; StoreError, also where a runtime has the folder open.
    """
    check_available()
    if not server.startswith(("http://", "https://")):
        raise ConfigurationError(f"{server!a} is not a server address like https://models.example.com")
    from edge_runtime.update.fetcher import default_client

    store = Store(folder)
    try:
        # Whoever types this knows of something new.
        Waits(folder, store.disk, SystemClock()).forget(Purpose.ENROLMENT)
        enroller = open_enroller(folder, server, root, token)
        with default_client(server) as client:
            enroller.ready(client)
        return enroller.record
    finally:
        store.close()


def open_enroller(folder: Path, server: str, root: bytes, token: str | None = None) -> Enroller:
    """What signs for the device whose state is in ``folder``. Raises `StoreError`."""
    disk, clock = RealDisk(), SystemClock()
    return Enroller(
        folder=folder,
        disk=disk,
        clock=clock,
        waits=Waits(folder, disk, clock),
        device=Device.detect(folder).id,
        server=server,
        root=root,
        token=token,
        refusal=lambda why: None,
    )
