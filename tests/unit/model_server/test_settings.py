from datetime import timedelta
from pathlib import Path

import pytest

from model_server.db.base import open_engine
from model_server.errors import SettingsError
from model_server.settings import SETTINGS_FILE, Settings, load_settings, settings_text


def test_the_file_that_init_writes_means_the_defaults_but_for_the_token_of_older_fleets(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(settings_text())
    assert load_settings(tmp_path) == Settings(directory=tmp_path, fleet_token=False)
    (tmp_path / SETTINGS_FILE).write_text("")
    assert load_settings(tmp_path) == Settings(directory=tmp_path, fleet_token=True)


def test_settings_can_be_changed_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(
        '[storage]\ndatabase = "postgresql://db/edgeship"\n[rollouts]\ncontroller_interval_s = 1\n'
        "[signing.expiry_days]\ntimestamp = 0.5\n[telemetry]\nepsilon = 2\n[telemetry.drift]\ntolerance = 0.1\n"
    )
    settings = load_settings(tmp_path)
    assert settings.database_url == "postgresql://db/edgeship"
    assert settings.controller_interval_s == 1.0
    assert settings.expiry.timestamp == timedelta(hours=12)
    assert settings.expiry.root == timedelta(days=365)
    assert (settings.telemetry.epsilon, settings.telemetry.drift.tolerance) == (2.0, 0.1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[storag]\n", "storag"),
        ("[storage]\ndatabse = 'x'\n", "databse"),
        ("[storage]\ndatabase = 1\n", "storage.database"),
        ("[rollouts]\ncontroller_interval_s = 0\n", "controller_interval_s"),
        ("[rollouts]\nrequire_staging = 1\n", "require_staging"),
        ("[devices]\nfleet_token = 1\n", "fleet_token"),
        ("[devices]\nminimum_report_interval_s = -1\n", "minimum_report_interval_s"),
        ("[devices]\nminimum_report_interval_s = 86401\n", "minimum_report_interval_s"),
        ("[rollouts]\ncontroller_interval_s = nan\n", "controller_interval_s"),
        ("[rollouts]\ncontroller_interval_s = 1e300\n", "controller_interval_s"),
        ("[releases]\nreadiness = 'sh -c true'\n", "releases.readiness"),
        ("[releases]\nreadiness = ['', 'x']\n", "releases.readiness"),
        ("[releases]\nreadiness = ['sh', 1]\n", "releases.readiness"),
        ("[releases]\nreadiness_timeout_s = 0\n", "readiness_timeout_s"),
        ("[releases]\nmax_accuracy_drop = 2\n", "max_accuracy_drop"),
        ("[signing.expiry_days]\nroot = -1\n", "expiry"),
        ("[signing.expiry_days]\nroot = 1e12\n", "expiry"),
        ("[signing.expiry_days]\nroot = inf\n", "expiry"),
        ("[signing.expiry_days]\nroots = 1\n", "expiry_days"),
        ("[telemetry]\nepsilonn = 1\n", "epsilonn"),
        ("[telemetry]\nepsilon = 0\n", "epsilon"),
        ("[telemetry]\nepsilon = inf\n", "epsilon"),
        ("[telemetry.drift]\nthreshold = 0\n", "threshold"),
        ("[telemetry.drift]\ntolerance = nan\n", "tolerance"),
        ("[telemetry.drift]\nfloor = -0.1\n", "floor"),
        ("[telemetry]\ndrift = 1\n", "drift"),
        ("database = 1\n", "database"),
        ("not toml", "line 1"),
        ("x" * 70_000, "too large"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(SettingsError, match=names):
        load_settings(tmp_path)


def test_a_folder_that_init_did_not_make_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="edgeship-server init"):
        load_settings(tmp_path / "nowhere")


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? #1 100%"
    folder.mkdir()
    engine = open_engine(Settings(directory=folder).database_url)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    engine.dispose()
    assert (folder / "edgeship.db").exists()
