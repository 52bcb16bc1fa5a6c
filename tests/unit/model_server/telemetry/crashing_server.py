"""A telemetry server in a process of its own, to be killed: ``python -m … FOLDER`` prints its URL."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from fastapi import FastAPI

from model_server.telemetry.api import telemetry_router
from tests.support.asgi import serve
from tests.unit.model_server.telemetry.world import World

if __name__ == "__main__":
    world = World(Path(sys.argv[1]))
    app = FastAPI()
    app.include_router(telemetry_router(world.service, lambda header: "fleet", lambda route, header: "admin"))
    with serve(app) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        threading.Event().wait(120)
