"""The model server with a calendar that the demo turns: weeks of telemetry in seconds.

    python -m examples.smartwatch.calendar_server DIR --today-file day.txt --ready-file url.txt

It is the app of `edgeship-server serve`; only the function that says which day it is comes from outside, as every clock
in this project does.
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from pathlib import Path

EPOCH = date(1970, 1, 1)


def today_from(path: Path) -> date:
    """The day written in ``path``, as days since 1970-01-01."""
    return EPOCH + timedelta(days=int(path.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--today-file", required=True, type=Path)
    parser.add_argument("--ready-file", required=True, type=Path)
    options = parser.parse_args()

    from model_server.app import create_app
    from model_server.commands.serving import serve
    from model_server.settings import load_settings

    settings = load_settings(options.directory)
    app = create_app(settings, telemetry_today=lambda: today_from(options.today_file))
    serve(app, "127.0.0.1", 0, ready_file=options.ready_file, announce=print)


if __name__ == "__main__":
    main()
