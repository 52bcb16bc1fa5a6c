from __future__ import annotations

import pytest

from edge_runtime.bundle import (
    BundleError,
    InvalidName,
    check_channel,
    check_file,
    check_model,
    check_release,
    delta_file,
    golden_file,
    plan_path,
    policy_path,
    split_target_path,
    target_path,
)

LABELS = ["a", "7", "exercise", "a-b", "a--b", "x" * 64, "0-9", "console", "com10", "nullable"]
NOT_LABELS = [
    *("", "A", "Exercise", "-a", "a-", "-", "a_b", "a.b", "a b", "a/b", "../a", "x" * 65, "a\n", "\na", "é", "a\0"),
    *("ﬁ", "e\u0301", "٣", "con", "nul", "prn", "aux", "com1", "lpt9", "com0"),
]
FILES = ["a", "A", "model.onnx", "a.b.c", "_x", "9", "x" * 128, "a-", "a..b", "conx.txt", "com10", "model-int8.onnx"]
NOT_FILES = [
    *(
        "",
        ".",
        "..",
        ".a",
        "a.",
        "-a",
        "a/b",
        "a\\b",
        "/a",
        "C:",
        "c:a",
        "a b",
        "a\n",
        "a\0b",
        "x" * 129,
        "é",
        "a\u202eb",
    ),
    *("con", "CON", "Con.txt", "nul.json", "aux.tar.gz", "COM1", "com9.onnx", "lpt1", "a:b", "a*", "a?", "~", "a|b"),
]


@pytest.mark.parametrize("name", LABELS)
def test_models_and_channels_are_lower_case_letters_digits_and_inner_hyphens(name: str) -> None:
    assert check_model(name) == name
    assert check_channel(name) == name


@pytest.mark.parametrize("name", NOT_LABELS)
def test_other_model_and_channel_names_are_refused(name: str) -> None:
    for check in (check_model, check_channel):
        with pytest.raises(InvalidName):
            check(name)


@pytest.mark.parametrize("name", FILES)
def test_files_are_one_portable_path_component(name: str) -> None:
    assert check_file(name) == name


@pytest.mark.parametrize("name", NOT_FILES)
def test_other_file_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_file(name)


@pytest.mark.parametrize("number", [1, 2, 2**31 - 1])
def test_releases_are_positive_and_fit_31_bits(number: int) -> None:
    assert check_release(number) == number


@pytest.mark.parametrize("number", [0, -1, 2**31, 1 << 20_000, True, 1.0, "1", None], ids=lambda n: type(n).__name__)
def test_other_release_numbers_are_refused(number: object) -> None:
    with pytest.raises(InvalidName):
        check_release(number)  # type: ignore[arg-type]


@pytest.mark.parametrize("check", [check_model, check_channel, check_file])
@pytest.mark.parametrize("value", [None, 1, b"a", ["a"]])
def test_what_is_not_a_string_is_no_name(check: object, value: object) -> None:
    with pytest.raises(InvalidName):
        check(value)  # type: ignore[operator]


def test_paths_are_made_of_checked_names() -> None:
    assert target_path("exercise", 12, "manifest.json") == "models/exercise/12/manifest.json"
    assert policy_path("exercise") == "models/exercise/policy.json"
    assert plan_path("stable", "exercise") == "rollouts/stable/exercise.json"
    for make in (
        lambda: target_path("../x", 1, "f"),
        lambda: target_path("x", 0, "f"),
        lambda: target_path("x", 1, "../f"),
        lambda: policy_path("x/y"),
        lambda: plan_path("stable", "x/../y"),
        lambda: plan_path("", "x"),
    ):
        with pytest.raises(BundleError):
            make()


def test_a_target_path_can_be_split_again() -> None:
    assert split_target_path(target_path("exercise", 12, "a.onnx")) == ("exercise", 12, "a.onnx")


@pytest.mark.parametrize(
    "path",
    [
        *("", "models", "models/a/1", "models/a/1/f/g", "model/a/1/f", "/models/a/1/f", "models//1/f", "models/a/1/"),
        *("models/a/0/f", "models/a/01/f", "models/a/+1/f", "models/a/1 /f", "models/a/-1/f", "models/a/1e3/f"),
        *("models/a/2147483648/f", "models/a/99999999999/f", "models/A/1/f", "models/a/1/..", "models/../1/f"),
        *("models\\a\\1\\f", "models/a/１/f", "MODELS/a/1/f", "models/a/1/f\n", "rollouts/stable/a.json"),
    ],
)
def test_a_path_with_a_second_spelling_is_refused(path: str) -> None:
    with pytest.raises(InvalidName):
        split_target_path(path)


def test_derived_file_names_are_checked_too() -> None:
    assert golden_file("m.onnx") == "m.onnx.golden.npz"
    assert delta_file("m.onnx", 3) == "m.onnx.from-3.delta"
    with pytest.raises(InvalidName):
        golden_file("x" * 128)
    with pytest.raises(InvalidName):
        delta_file("m.onnx", 0)


def test_a_hostile_name_is_quoted_and_cut_short_in_the_error() -> None:
    with pytest.raises(InvalidName) as caught:
        check_model("\x1b[31m" + "x" * 10_000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300
