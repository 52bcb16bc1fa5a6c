from __future__ import annotations

from pathlib import Path

import pytest

from converters.errors import InvalidRequest
from converters.recipe_file import read_recipe

RECIPE = """
source = "waves.keras"
name = "waves"
release = 4
calibration = "data/c.npz"
evaluation = "/absolute/e.npz"
targets = ["onnx", "tflite"]
precision = "int8"
max_accuracy_drop = 0.02
out = "out"
labels = ["slow", "medium", "fast"]
owner = "Ann"
contact = "ann@example.com"
predicts = "How fast a wave is."
personal_data = false
seeds = [7]
known_failures = ["two waves, at once"]

[ranges]
window = [-10000, 20000.0]

[units]
window = "g"

[edge_cases]
"two waves" = "two.npz"

[[features]]
name = "mean-x"
input = "window"
reduce = "mean"
index = 0

[hybrid]
model = "waves-cloud"
releases = [1]
inputs = [{ name = "context", dtype = "float32", shape = ["n", 32, 3] }]

[requirements]
os = ["linux"]
ram_bytes = 1000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "waves.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_holds_what_the_command_line_does_and_what_a_person_knows(file: Path) -> None:
    recipe = read_recipe(file)
    assert recipe.options["precision"] == ("int8",)
    assert recipe.options["targets"] == ("onnx", "tflite")
    assert recipe.options["release"] == 4
    assert recipe.description.ranges == {"window": (-10000.0, 20000.0)}
    assert recipe.labels == ("slow", "medium", "fast")
    assert recipe.features is not None
    assert recipe.features[0].reduce == "mean"
    assert recipe.hybrid is not None
    assert recipe.hybrid.inputs[0].shape == ("n", 32, 3)
    assert recipe.requirements is not None
    assert recipe.requirements.os == ("linux",)


def test_paths_start_from_the_recipes_own_folder(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(file)
    assert recipe.options["calibration"] == str(tmp_path / "data/c.npz")
    assert recipe.options["evaluation"] == "/absolute/e.npz"
    assert recipe.options["source"] == str(tmp_path / "waves.keras")
    assert recipe.edge_cases == {"two waves": tmp_path / "two.npz"}
    file.write_text('profile = "devices/mine.toml"\nmlflow = "waves"\npeak_memory = false\n')
    assert read_recipe(file).options["profile"] == str(tmp_path / "devices/mine.toml")
    assert read_recipe(file).options["mlflow"] == "waves"
    assert read_recipe(file).options["peak_memory"] is False
    file.write_text('profile = "raspberry-pi-zero-2-w"\n')
    assert read_recipe(file).options["profile"] == "raspberry-pi-zero-2-w"
    file.write_text('source = "mlflow:models:/waves/3"\n')
    assert read_recipe(file).options["source"] == "mlflow:models:/waves/3"


def test_axes_have_sizes_in_a_table_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[axes]\ntime = 512\n")
    assert read_recipe(path).axes == {"time": 512}
    path.write_text("[axes]\ntime = 'long'\n")
    with pytest.raises(InvalidRequest, match="axes: must be a whole number, not 'long'"):
        read_recipe(path)


def test_a_sentence_with_a_comma_stays_one_sentence(file: Path) -> None:
    assert read_recipe(file).description.known_failures == ("two waves, at once",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("owner = ", "ownr = "), r"unknown keys ownr \(did you mean owner\?\); there are "),
        (("max_accuracy_drop", "max-accuracy-drop"), r"max-accuracy-drop \(did you mean max_accuracy_drop\?\)"),
        (
            ("release = 4", "trust_pickle = true"),
            "trust_pickle has its place on the command line alone: a pickle",
        ),
        (("release = 4", "overwrite = true"), "overwrite has its place on the command line alone: .*--overwrite"),
        (("release = 4", 'release = "4"'), "release: must be a whole number"),
        (("release = 4", "release = true"), "release: must be a whole number"),
        (("personal_data = false", "personal_data = 0"), "personal_data: must be true or false"),
        (("reduce = ", "redcue = "), "features: unknown keys redcue"),
        (('labels = ["slow", "medium", "fast"]', "labels = 3"), "labels: must be a list of texts"),
        (("[ranges]", "[ranges"), "not TOML"),
        (("releases = [1]", ""), "hybrid lacks 'releases'"),
        (("window = [-10000, 20000.0]", "window = [1]"), "ranges: "),
        (('os = ["linux"]', 'oss = ["linux"]'), "requirements: unknown keys oss"),
        (("seeds = [7]", "seeds = 7"), "seeds: must be a list of whole numbers"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused_by_its_key(
    change: tuple[str, str], message: str, file: Path
) -> None:
    file.write_text(RECIPE.replace(*change))
    with pytest.raises(InvalidRequest, match=message):
        read_recipe(file)


def test_a_recipe_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
