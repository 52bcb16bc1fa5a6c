"""Model files from a stranger: what they hold must not run, reach outside itself, or fill the machine.

Each attack that would run code leaves a marker file if it succeeds.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters import open_source
from converters.errors import ConverterError, ModelUnreadable, PickleRefused, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool
from converters.sources.onnx_untrusted import load_untrusted
from tests.support import tiny


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the attack succeeded"


# -- pickles -----------------------------------------------------------------------------------------------------------


class Exploit:
    """Unpickling it creates the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["net.pkl", "net.joblib", "net.sav", "net", "net.onnx", "net.tflite", "net.keras"])
def test_a_pickle_under_any_name_runs_only_with_the_flag(name: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Exploit(marker)))
    with pytest.raises(PickleRefused, match="--trust-pickle"):
        open_source(tmp_path / name)
    assert not marker.exists()
    with pytest.raises(UnsupportedModel, match="not a scikit-learn estimator"):
        open_source(tmp_path / name, trust_pickle=True)
    assert marker.exists(), "the file is no dud: only the flag stood before it"


def test_a_compressed_pickle_runs_only_with_the_flag(marker: Path, tmp_path: Path) -> None:
    import joblib

    joblib.dump(Exploit(marker), tmp_path / "net.joblib", compress=("gzip", 3))
    with pytest.raises(PickleRefused):
        open_source(tmp_path / "net.joblib")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["net.pt", "net.pth"])
def test_a_pickled_module_of_pytorch_is_never_loaded(name: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Exploit(marker)))
    with pytest.raises(UnsupportedModel, match=r"torch\.export"):
        open_source(tmp_path / name, trust_pickle=True)
    assert not marker.exists()


def test_a_logged_models_pickle_and_description_run_nothing(marker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logged"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(Exploit(marker)))
    (folder / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}")
    with pytest.raises(PickleRefused):
        open_source(f"mlflow:{folder}")
    (folder / "MLmodel").write_text(f"flavors: !!python/object/apply:os.mknod [{str(marker)!r}]")
    with pytest.raises(ModelUnreadable, match="damaged"):
        open_source(f"mlflow:{folder}")
    assert not marker.exists()


# -- Keras -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmless ``.keras`` file."""
    keras = load_tool("keras")
    path = tmp_path_factory.mktemp("keras") / "net.keras"
    keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)]).save(path)
    return path


def changed(saved: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the file with other entries."""
    with zipfile.ZipFile(saved) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_lambda_layers_code_does_not_run(marker: Path, tmp_path: Path) -> None:
    keras = load_tool("keras")
    x = keras.Input((4,), name="x")
    target = str(marker)
    code = keras.layers.Lambda(lambda value: [value, __import__("pathlib").Path(target).touch()][0], name="evil")
    keras.Model(x, code(x)).save(tmp_path / "net.keras")
    marker.unlink(missing_ok=True)  # building the model ran it
    with pytest.raises(ModelUnreadable, match="Lambda layer evil, which loading would run"):
        open_source(tmp_path / "net.keras")
    assert not marker.exists()


@pytest.mark.parametrize(
    "gadget",
    [
        {"module": "os", "class_name": "system"},
        {"module": "builtins", "class_name": "exec"},
        {"module": "subprocess", "class_name": "Popen"},
        {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
    ],
    ids=lambda gadget: f"{gadget['module']}.{gadget['class_name']}",
)
def test_a_description_that_names_other_code_than_keras_runs_nothing(
    gadget: dict[str, Any], saved: Path, marker: Path, tmp_path: Path
) -> None:
    def change(entries: dict[str, bytes]) -> None:
        config = json.loads(entries["config.json"])
        command = {"command": f"touch {str(marker)!r}", "args": ["touch", str(marker)]}
        config["config"]["layers"].append({"config": command, "registered_name": None, "build_config": {}} | gadget)
        entries["config.json"] = json.dumps(config).encode()

    with pytest.raises(ModelUnreadable):
        open_source(changed(saved, tmp_path / "net.keras", change))
    assert not marker.exists()


def test_a_keras_file_that_would_unpack_to_gigabytes_is_refused(saved: Path, tmp_path: Path) -> None:
    path = changed(saved, tmp_path / "net.keras", lambda entries: entries.update(bomb=bytes(200 << 20)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelUnreadable, match="zip bomb"):
        open_source(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "assets/../../evil", "a\\..\\evil", "C:evil"])
def test_an_entry_that_leaves_its_folder_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    path = changed(saved, tmp_path / "net.keras", lambda entries: entries.update({name: b"x"}))
    with pytest.raises(ModelUnreadable, match="leaves its folder"):
        open_source(path)


def test_two_entries_of_one_name_are_refused(saved: Path, tmp_path: Path) -> None:
    path = changed(saved, tmp_path / "net.keras", lambda entries: None)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelUnreadable, match="two entries"):
        open_source(path)


def test_weights_that_lie_in_another_file_are_not_read(saved: Path, tmp_path: Path) -> None:
    import h5py

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["vars/0"] = np.full((4, 3), 7.0, np.float32)
        file["vars/1"] = np.full((3,), 7.0, np.float32)

    def change(entries: dict[str, bytes]) -> None:
        buffer = io.BytesIO(entries["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            found: list[str] = []
            file.visit(lambda name: found.append(name) if name.endswith("dense/vars") else None)
            (place,) = found
            del file[place]
            file[place] = h5py.ExternalLink(str(secret), "vars")
        entries["model.weights.h5"] = buffer.getvalue()

    with pytest.raises(ModelUnreadable, match="ExternalLink"):
        open_source(changed(saved, tmp_path / "net.keras", change))


def test_a_description_nested_without_end_is_refused(saved: Path, tmp_path: Path) -> None:
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    path = changed(saved, tmp_path / "net.keras", lambda entries: entries.update({"config.json": deep}))
    with pytest.raises(ModelUnreadable):
        open_source(path)


# -- ONNX --------------------------------------------------------------------------------------------------------------


def external(path: Path, location: str, **about: str) -> Path:
    """The tiny model, whose matrix is said to lie at ``location``."""
    model = tiny.onnx_model()
    matrix = model.graph.initializer[0]
    matrix.ClearField("raw_data")
    matrix.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **about}.items():
        matrix.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the right size outside of the model's folder."""
    path = tmp_path / "secret"
    path.write_bytes(bytes(60 * 4 * 4))
    (tmp_path / "model").mkdir()
    return path


@pytest.mark.parametrize("location", ["../secret", "{absolute}", "data/../../secret", "..\\secret", "", "/"])
def test_weights_outside_of_the_models_folder_are_not_read(location: str, secret: Path, tmp_path: Path) -> None:
    path = external(tmp_path / "model" / "net.onnx", location.replace("{absolute}", str(secret)))
    with pytest.raises(ModelUnreadable, match=r"external data of tensor matrix.*not inside its folder"):
        open_source(path)


def test_weights_behind_a_link_are_not_read(secret: Path, tmp_path: Path) -> None:
    path = external(tmp_path / "model" / "net.onnx", "data/weights")
    data = tmp_path / "model" / "data"
    data.symlink_to(tmp_path)
    with pytest.raises(ModelUnreadable, match="symbolic link"):
        open_source(path)
    data.unlink()
    data.mkdir()
    (data / "weights").symlink_to(secret)
    with pytest.raises(ModelUnreadable, match="symbolic link"):
        open_source(path)
    (data / "weights").unlink()
    os.link(secret, data / "weights")
    with pytest.raises(ModelUnreadable, match="hard link"):
        open_source(path)
    (data / "weights").unlink()
    os.mkfifo(data / "weights")
    with pytest.raises(ModelUnreadable, match="not a regular file"):
        open_source(path)
    (data / "weights").unlink()
    (data / "weights").write_bytes(secret.read_bytes())
    assert open_source(path).parameters == 244, "a copy inside is welcome"


@pytest.mark.parametrize(
    "about", [{"offset": "999999"}, {"length": str(1 << 60)}, {"offset": "-4"}, {"offset": "x"}, {"length": "-1"}]
)
def test_an_offset_or_length_past_the_file_is_refused(about: dict[str, str], secret: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "weights").write_bytes(secret.read_bytes())
    with pytest.raises(ModelUnreadable, match="external data"):
        open_source(external(tmp_path / "model" / "net.onnx", "weights", **about))


def test_weights_of_a_branch_cannot_reach_outside_either(secret: Path, tmp_path: Path) -> None:
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../secret")
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Constant", [], ["v"], value=hidden)], "b", [], [value])
    node = helper.make_node("If", ["c"], ["logits"], then_branch=branch, else_branch=branch)
    path = tmp_path / "model" / "net.onnx"
    path.write_bytes(tiny.onnx_bytes(operators=[node], last="unused"))
    with pytest.raises(ModelUnreadable, match="tensor hidden"):
        open_source(path)


@pytest.mark.parametrize("inside", ["graph", "function"])
def test_an_operator_of_a_custom_domain_is_refused_by_name(inside: str, tmp_path: Path) -> None:
    evil = helper.make_node("Evil", ["product"], ["logits"], domain="com.evil")
    model = tiny.onnx_model(operators=[evil], opsets=[helper.make_opsetid("com.evil", 1)])
    if inside == "function":
        del model.graph.node[-1]
        model.graph.node.append(helper.make_node("Plain", ["product"], ["logits"], domain="own"))
        body = helper.make_node("Evil", ["x"], ["y"], domain="com.evil")
        opsets = [helper.make_opsetid("com.evil", 1)]
        model.functions.append(helper.make_function("own", "Plain", ["x"], ["y"], [body], opsets))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedOperator, match=r"custom domain 'com\.evil'") as raised:
        open_source(tmp_path / "net.onnx")
    assert raised.value.operator == "com.evil.Evil"


@pytest.mark.parametrize("operator", ["EPContext", "PythonOp"])
def test_an_operator_that_reads_files_or_runs_python_is_refused(operator: str, tmp_path: Path) -> None:
    node = helper.make_node(operator, ["product"], ["logits"], domain="com.microsoft")
    model = tiny.onnx_bytes(operators=[node], opsets=[helper.make_opsetid("com.microsoft", 1)])
    (tmp_path / "net.onnx").write_bytes(model)
    with pytest.raises(UnsupportedModel, match=operator):
        open_source(tmp_path / "net.onnx")


WHOLE = tiny.onnx_bytes()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_onnx_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(WHOLE[:at] if cut else WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])
    try:
        model, data = load_untrusted(path)
    except ConverterError:
        return
    assert isinstance(model, onnx.ModelProto)
    assert data


# -- TensorFlow --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def savedmodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmless SavedModel with one variable."""
    tf = load_tool("tensorflow")
    module = tf.Module()
    module.weight = tf.Variable(np.ones((3, 2), np.float32))
    call = tf.function(lambda x: {"y": x @ module.weight}, input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    folder = tmp_path_factory.mktemp("tf") / "net"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": call})
    return folder


def edited(folder: Path, copy: Path, edit: Callable[[Any], None]) -> Path:
    """A copy of the SavedModel with a changed graph."""
    import shutil

    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(folder, copy)
    saved = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    edit(saved.meta_graphs[0])
    (copy / "saved_model.pb").write_bytes(saved.SerializeToString())
    return copy


def add_write(graph: Any, marker: Path) -> Any:
    """A node that writes the marker, when it runs; the node."""
    tf = load_tool("tensorflow")
    for name, text in (("name", str(marker)), ("text", "x")):
        node = graph.graph_def.node.add(name=f"evil/{name}", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
    return graph.graph_def.node.add(name="evil", op="WriteFile", input=["evil/name", "evil/text"])


@pytest.mark.parametrize("trigger", ["signature", "restore", "function"])
def test_a_graph_that_writes_files_is_refused_before_any_of_it_runs(
    trigger: str, savedmodel: Path, marker: Path, tmp_path: Path
) -> None:
    def edit(graph: Any) -> None:
        write = add_write(graph, marker)
        if trigger == "function":
            wanted = graph.signature_def["serving_default"].outputs["y"].name.split(":")[0]
            called = next(node for node in graph.graph_def.node if node.name == wanted).attr["f"].func.name
            body = next(each for each in graph.graph_def.library.function if each.signature.name == called)
            body.node_def.add().CopyFrom(write)
            return
        outputs = graph.signature_def["serving_default"].outputs["y"].name
        victim = graph.saver_def.restore_op_name if trigger == "restore" else outputs.split(":")[0]
        next(node for node in graph.graph_def.node if node.name == victim).input.append("^evil")

    with pytest.raises(UnsupportedOperator, match=r"WriteFile: .*reaches outside the model"):
        open_source(edited(savedmodel, tmp_path / "net", edit))
    assert not marker.exists()


def test_a_graphs_own_initialization_does_not_run(savedmodel: Path, marker: Path, tmp_path: Path) -> None:
    def edit(graph: Any) -> None:
        add_write(graph, marker)
        graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "evil"

    source = open_source(edited(savedmodel, tmp_path / "net", edit))
    assert source.predict({"x": np.ones((1, 3))})["y"].tolist() == [[3.0, 3.0]]
    assert not marker.exists()


@pytest.mark.parametrize("operator", ["ReadFile", "EagerPyFunc", "PyFuncStateless", "NoSuchOperator", "HashTableV2"])
def test_an_operator_that_must_not_run_is_refused_by_name(operator: str, savedmodel: Path, tmp_path: Path) -> None:
    def edit(graph: Any) -> None:
        name = graph.signature_def["serving_default"].outputs["y"].name.split(":")[0]
        graph.graph_def.node.add(name="evil", op=operator)
        next(node for node in graph.graph_def.node if node.name == name).input.append("^evil")

    with pytest.raises(UnsupportedOperator) as raised:
        open_source(edited(savedmodel, tmp_path / "net", edit))
    assert raised.value.operator == operator


# -- TFLite and Core ML ------------------------------------------------------------------------------------------------


def test_a_tflite_file_cut_anywhere_is_refused_and_nothing_crashes(tmp_path: Path) -> None:
    whole = tiny.tflite_bytes("fixed")
    path = tmp_path / "net.tflite"
    for cut in range(8, len(whole) - 64, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelUnreadable):
            open_source(path)


def package(path: Path, *, entries: dict[str, bytes] | None = None, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net.mlpackage/Manifest.json", "{}")
        for name, content in (entries or {}).items():
            archive.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo("net.mlpackage/Data/weights")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, link)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entries": {"net.mlpackage/Data/bomb": bytes(100 << 20)}}, "zip bomb"),
        ({"entries": {"net.mlpackage/../../evil": b"x"}}, "leaves its folder"),
        ({"link": "/etc/passwd"}, "holds the link"),
        ({"entries": {"other/file": b"x"}}, "exactly one"),
        ({}, "is not a Core ML package that can be read"),
    ],
    ids=["bomb", "traversal", "link", "two", "empty"],
)
def test_a_hostile_zip_of_a_core_ml_package_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=message):
        open_source(package(tmp_path / "net.zip", **options))


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_core_ml_package_takes_no_file_from_outside_along(kind: str, secret: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net.mlpackage"
    (folder / "Data").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (os.link if kind == "hard" else os.symlink)(secret, folder / "Data" / "weights")
    with pytest.raises(ModelUnreadable, match=f"{kind} link"):
        open_source(folder)
