"""What an operator chooses: ``settings.toml`` in the server's folder, read once, strictly."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from edge_runtime.bundle.limits import MAX_ARTIFACTS, MAX_DELTAS
from model_server.errors import SettingsError
from model_server.releases.delta.offering import DeltaLimits
from model_server.signing.places import is_uri
from model_server.signing.roles import Expiry
from model_server.telemetry.drift import DriftSettings
from model_server.telemetry.settings import TelemetrySettings

__all__ = ["SETTINGS_FILE", "Place", "Settings", "load_settings", "settings_text"]

SETTINGS_FILE = "settings.toml"
MAX_SETTINGS_BYTES = 65_536
MAX_INTERVAL_S = 3600  # what expires within a day must be looked at more often than that
MAX_REPORT_INTERVAL_S = 86_400  # devices wait no longer than a day, whoever asks
MAX_EXPIRY_DAYS = 36_500
MAX_DELTA_RELEASES = MAX_DELTAS // MAX_ARTIFACTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server keeps what it must not lose. ``database`` is a file or a URL; ``objects``, for published files and
    blobs, a folder or the URL of an object store, which ``endpoint`` and ``region`` may place elsewhere than at AWS."""

    database: str = "edgeship.db"
    objects: str = "."
    endpoint: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``directory`` is the server's folder; relative paths in the file are inside it. ``database`` is a file or a
    URL; the ``objects`` are those of `Place`. ``models_dir`` holds the cloud models,
    ``<name>/<version>/model.onnx``. ``readiness`` is the command that judges each bundle, and its arguments;
    ``max_accuracy_drop`` is a share, None for no limit. ``fleet_token``: whether a token that all devices share still
    counts; by default it does, for the devices of older installations."""

    directory: Path
    database: str = Place().database
    objects: str = Place().objects
    objects_endpoint: str = Place().endpoint
    objects_region: str = Place().region
    keys: Path = Path("keys")
    passphrase_file: Path = Path("keys/online.passphrase")
    rollouts_uri: str | None = None
    snapshot_uri: str | None = None
    timestamp_uri: str | None = None
    pin_file: Path = Path("keys/online.pin")
    models_dir: Path = Path("models")
    max_bundle_bytes: int = 1 << 30
    delta_releases: int = DeltaLimits().releases
    readiness: tuple[str, ...] = ()
    readiness_timeout_s: float = 600.0
    max_accuracy_drop: float | None = None
    controller_interval_s: float = 30.0
    require_staging: bool = False
    fleet_token: bool = True
    minimum_report_interval_s: float = 0.0
    expiry: Expiry = field(default_factory=Expiry)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    @property
    def database_url(self) -> str:
        if "://" in self.database:
            return self.database
        # Not by pasting strings together: a folder's name may hold what a URL gives a meaning to.
        return URL.create("sqlite", database=str(self.directory / self.database)).render_as_string()

    @property
    def object_options(self) -> dict[str, str]:
        """What an object store is opened with."""
        options = {"endpoint": self.objects_endpoint, "region": self.objects_region}
        return {key: value for key, value in options.items() if value}

    @property
    def mirror_dir(self) -> Path:
        """Metadata out of an object store, as it was asked for."""
        return self.directory / "mirror"

    @property
    def spool_dir(self) -> Path:
        return self.directory / "spool"

    @property
    def keys_dir(self) -> Path:
        return self.directory / self.keys

    @property
    def online_passphrase(self) -> Path:
        return self.directory / self.passphrase_file

    @property
    def online_uris(self) -> dict[str, str]:
        """The server's keys that live elsewhere, by use."""
        uris = {"rollouts": self.rollouts_uri, "snapshot": self.snapshot_uri, "timestamp": self.timestamp_uri}
        return {use: uri for use, uri in uris.items() if uri is not None}

    @property
    def online_pin(self) -> Path:
        return self.directory / self.pin_file

    @property
    def cloud_models(self) -> Path:
        return self.directory / self.models_dir


# section → key → (field, type as written in the file)
_KEYS: dict[str, dict[str, tuple[str, type]]] = {
    "storage": {
        "database": ("database", str),
        "objects": ("objects", str),
        "objects_endpoint": ("objects_endpoint", str),
        "objects_region": ("objects_region", str),
    },
    "signing": {
        "keys": ("keys", str),
        "passphrase_file": ("passphrase_file", str),
        "rollouts": ("rollouts_uri", str),
        "snapshot": ("snapshot_uri", str),
        "timestamp": ("timestamp_uri", str),
        "pin_file": ("pin_file", str),
    },
    "inference": {"models_dir": ("models_dir", str)},
    "releases": {
        "max_bundle_bytes": ("max_bundle_bytes", int),
        "delta_releases": ("delta_releases", int),
        "readiness": ("readiness", list),
        "readiness_timeout_s": ("readiness_timeout_s", float),
        "max_accuracy_drop": ("max_accuracy_drop", float),
    },
    "rollouts": {
        "controller_interval_s": ("controller_interval_s", float),
        "require_staging": ("require_staging", bool),
    },
    "devices": {
        "fleet_token": ("fleet_token", bool),
        "minimum_report_interval_s": ("minimum_report_interval_s", float),
    },
}


def load_settings(directory: Path) -> Settings:
    """Read ``settings.toml`` of a server's folder.

    Raises: SettingsError for a folder without one, a key that is not known, or a value that cannot be.
    """
    path = directory / SETTINGS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}): run `edgeship-server init {directory}` first"
        ) from error
    if len(data) > MAX_SETTINGS_BYTES:
        raise SettingsError(f"{path} is too large for a settings file")
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return _settings(directory, path, document)


def settings_text(place: Place | None = None) -> str:
    """The file that `init` writes: every setting with its default, but for what is given, and ``fleet_token``, which no
    new installation needs."""
    place = place or Place()
    own, telemetry, drift = Settings(directory=Path()), TelemetrySettings(), DriftSettings()
    return f"""\
# Settings of an Edgeship server. Relative paths are inside this folder. An unknown key is an error.
[storage]
database = {json.dumps(place.database)}            # a file, or postgresql://user@host/name
objects = {json.dumps(place.objects)}                      # repository/ and blobs/: a folder, or s3://bucket/prefix
objects_endpoint = {json.dumps(place.endpoint)}              # of a store that is not AWS, as in https://s3.example
objects_region = {json.dumps(place.region)}

[signing]
keys = "{own.keys}"                      # holds online-rollouts.pem, online-snapshot.pem, online-timestamp.pem
passphrase_file = "{own.passphrase_file}"
pin_file = "{own.pin_file}"           # of keys on a token: timestamp = "hsm:2?label=edgeship", also rollouts, snapshot

[signing.expiry_days]
root = {own.expiry.root.days}
targets = {own.expiry.targets.days}
releases = {own.expiry.releases.days}
rollouts = {own.expiry.rollouts.days}
snapshot = {own.expiry.snapshot.days}
timestamp = {own.expiry.timestamp.days}

[releases]
max_bundle_bytes = {own.max_bundle_bytes}
delta_releases = {own.delta_releases}                 # deltas are made from so many releases back; 0 for none
readiness = []                     # a command that must pass each bundle: ["/etc/edgeship/ready", "--strict"]
readiness_timeout_s = {own.readiness_timeout_s}
# max_accuracy_drop = 0.02         # of any artifact below the float one; without this line, no limit

[rollouts]
controller_interval_s = {own.controller_interval_s}       # renewing metadata and judging rollouts; reports wake it too
require_staging = false            # true: a candidate must first complete a rollout on the channel "staging"

[devices]
fleet_token = false                # true: a token that all devices share still counts, for devices of before enrolment
minimum_report_interval_s = {own.minimum_report_interval_s}    # devices report no more often; 0: as often as they check

[inference]
models_dir = "{own.models_dir}"              # cloud models: <name>/<version>/model.onnx

[telemetry]
epsilon = {telemetry.epsilon}                     # of everything that a device sends in a day, together
delta = {telemetry.delta}
minimum_cohort = {telemetry.minimum_cohort}               # device-days below which no number is shown or judged
late_days = {telemetry.late_days}
minimum_baseline_days = {telemetry.minimum_baseline_days}
queue = {telemetry.queue}

[telemetry.drift]
tolerance = {drift.tolerance}
floor = {drift.floor}
threshold = {drift.threshold}
"""


def _settings(directory: Path, path: Path, document: Mapping[str, Any]) -> Settings:
    values: dict[str, Any] = {"directory": directory}
    for section, table in document.items():
        if section not in (*_KEYS, "telemetry") or not isinstance(table, dict):
            raise SettingsError(f"{path}: [{section}] is not a section of this version")
        if section == "telemetry":
            values["telemetry"] = _telemetry(path, table)
            continue
        for key, value in table.items():
            if (section, key) == ("signing", "expiry_days"):
                values["expiry"] = _expiry(path, value)
                continue
            if key not in _KEYS[section]:
                raise SettingsError(f"{path}: [{section}] has no key {key!r} in this version")
            name, kind = _KEYS[section][key]
            values[name] = _value(path, f"{section}.{key}", kind, value)
    for name in ("keys", "passphrase_file", "pin_file", "models_dir"):
        if name in values:
            values[name] = Path(values[name])
    if "readiness" in values:
        values["readiness"] = _command(path, values["readiness"])
    settings = Settings(**values)
    if not 0 < settings.controller_interval_s <= MAX_INTERVAL_S:
        raise SettingsError(f"{path}: controller_interval_s must be above 0 and at most {MAX_INTERVAL_S}")
    if not 0 <= settings.minimum_report_interval_s <= MAX_REPORT_INTERVAL_S:
        raise SettingsError(f"{path}: minimum_report_interval_s must be from 0 to {MAX_REPORT_INTERVAL_S}")
    if not 0 <= settings.delta_releases <= MAX_DELTA_RELEASES:
        raise SettingsError(f"{path}: delta_releases must be from 0 to {MAX_DELTA_RELEASES}")
    for use, uri in settings.online_uris.items():
        if not is_uri(uri):
            raise SettingsError(
                f"{path}: signing.{use} is the URI of a key that lives elsewhere, as in hsm:2?label=edgeship; a key "
                "file in the folder of keys needs no line here"
            )
    if settings.readiness_timeout_s <= 0:
        raise SettingsError(f"{path}: readiness_timeout_s must be above 0")
    if settings.max_accuracy_drop is not None and not 0 <= settings.max_accuracy_drop <= 1:
        raise SettingsError(f"{path}: max_accuracy_drop must be from 0 to 1: 0.02 are two points")
    if settings.max_bundle_bytes <= 0:
        raise SettingsError(f"{path}: max_bundle_bytes must be above 0")
    return settings


def _command(path: Path, words: list[Any]) -> tuple[str, ...]:
    if not all(type(word) is str and "\0" not in word for word in words) or (words and not words[0]):
        raise SettingsError(f'{path}: releases.readiness must be a command and its arguments, as in ["ready", "--all"]')
    return tuple(words)


def _expiry(path: Path, table: Any) -> Expiry:
    known = {role.name for role in fields(Expiry)}
    if not isinstance(table, dict) or set(table) - known:
        raise SettingsError(f"{path}: [signing.expiry_days] may hold {', '.join(sorted(known))}")
    days = {role: _value(path, f"signing.expiry_days.{role}", float, value) for role, value in table.items()}
    if any(not 0 < value <= MAX_EXPIRY_DAYS for value in days.values()):
        raise SettingsError(f"{path}: an expiry must be above 0 days and at most {MAX_EXPIRY_DAYS}")
    return Expiry(**{role: timedelta(days=value) for role, value in days.items()})


def _telemetry(path: Path, table: Mapping[str, Any]) -> TelemetrySettings:
    drift = table.get("drift", {})
    if not isinstance(drift, dict):
        raise SettingsError(f"{path}: telemetry.drift must be a section")
    plain = {key: value for key, value in table.items() if key != "drift"}
    try:
        return TelemetrySettings(
            **_typed(path, "telemetry", TelemetrySettings(), plain),
            drift=DriftSettings(**_typed(path, "telemetry.drift", DriftSettings(), drift)),
        )
    except ValueError as error:
        raise SettingsError(f"{path}: [telemetry] {error}") from error


def _typed(
    path: Path, section: str, defaults: TelemetrySettings | DriftSettings, table: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a section whose keys and types are those of a dataclass of numbers."""
    kinds = {item.name: type(getattr(defaults, item.name)) for item in fields(defaults)}
    unknown = [key for key in table if kinds.get(key) not in (int, float)]
    if unknown:
        raise SettingsError(f"{path}: [{section}] has no key {unknown[0]!r} in this version")
    return {key: _value(path, f"{section}.{key}", kinds[key], value) for key, value in table.items()}


def _value(path: Path, key: str, kind: type, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingsError(f"{path}: {key} must be of type {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{path}: {key} must be a finite number")
    return value
