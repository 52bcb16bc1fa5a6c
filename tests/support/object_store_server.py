"""An S3 on two free ports, in the environment ``.tools/object-store`` and a process of its own: ``python FILE``.

Prints its two addresses as JSON: moto's S3, and the same one behind a server that drops the conditions of a write. Ends
when its standard input does.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

whole = DomainDispatcherApplication(create_backend_app)


def careless(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    environ.pop("HTTP_IF_NONE_MATCH", None)
    environ.pop("HTTP_IF_MATCH", None)
    answer: Iterable[bytes] = whole(environ, start)
    return answer


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    servers = [make_server("127.0.0.1", 0, application, threaded=True) for application in (whole, careless)]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps([f"http://127.0.0.1:{server.server_port}" for server in servers]) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
