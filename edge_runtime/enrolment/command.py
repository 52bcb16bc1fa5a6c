"""`edgeship-device enrol`: a person enrols this device now."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.clock import SystemClock
from edge_runtime.device import Device
from edge_runtime.enrolment.enroller import Enroller
from edge_runtime.enrolment.key import check_available
from edge_runtime.enrolment.record import Record
from edge_runtime.errors import ConfigurationError
from edge_runtime.store import Store
from edge_runtime.waits import Purpose, Waits

__all__ = ["enrol"]


def enrol(folder: Path, server: str, root: bytes, token: str) -> Record:
    """Enrol the device whose state is in ``folder``, which is made if need be; what became of it.

    Raises: ConfigurationError; StoreError, also where a runtime has the folder open.
    """
    if not server.startswith(("http://", "https://")):
        raise ConfigurationError(f"{server!a} is not a server address like https://models.example.com")
    check_available()
    from edge_runtime.update.fetcher import default_client

    store, clock = Store(folder), SystemClock()
    try:
        waits = Waits(folder, store.disk, clock)
        waits.forget(Purpose.ENROLMENT)  # whoever types this knows of something new
        enroller = Enroller(
            folder=folder,
            disk=store.disk,
            clock=clock,
            waits=waits,
            device=Device.detect(folder).id,
            server=server,
            root=root,
            token=token,
            refusal=lambda why: None,
        )
        with default_client(server) as client:
            enroller.ready(client)
        return enroller.record
    finally:
        store.close()
