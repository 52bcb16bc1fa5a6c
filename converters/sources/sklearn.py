"""A fitted scikit-learn estimator: an object, or a pickle whose origin the user vouches for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, PickleRefused, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool, quiet
from converters.sources.base import BATCH, Kind
from edge_runtime.bundle import TensorSpec

__all__ = ["INPUT", "SklearnSource", "load_pickle"]

INPUT = "x"  # the one input: a matrix of features
OPSET = 17
DISTILL = "`edgeship-convert distill` trains a small network from this estimator's answers, which reaches every target"
MAX_DEPTH = 12  # of estimators inside estimators


class SklearnSource:
    """A classifier or regressor that takes one numeric matrix ``x``, float32 ``(batch, features)``.

    The first output is what decides: ``probabilities`` ``(batch, classes)`` of a classifier that has them, else
    ``scores`` ``(batch, classes)`` from its decision function (of two classes: −d and d), or ``value``
    ``(batch, targets)`` of a regressor. ``activation`` says ``softmax`` for probabilities: their rows sum to one.

    Raises `UnsupportedModel` for what is not fitted, is no classifier or regressor, takes a table of named columns of
    different types, or answers several questions at once.
    """

    def __init__(self, estimator: Any, *, name: str | None = None) -> None:
        sklearn = load_tool("sklearn.base")
        self.estimator = estimator
        self._name = name or type(estimator).__name__.lower()
        if not hasattr(estimator, "predict") or not hasattr(estimator, "get_params"):
            raise UnsupportedModel(f"{type(estimator).__name__} is not a scikit-learn estimator that predicts")
        self._features = _features(estimator)
        if sklearn.is_regressor(estimator):
            self._output, self._method = "value", "predict"
        elif hasattr(estimator, "predict_proba"):
            self._output, self._method = "probabilities", "predict_proba"
        elif hasattr(estimator, "decision_function") and sklearn.is_classifier(estimator):
            self._output, self._method = "scores", "decision_function"
        else:
            raise UnsupportedModel(
                f"{type(estimator).__name__} is neither a regressor nor a classifier with probabilities or scores"
            )
        self._width = self._answers(np.zeros((1, self._features), np.float32)).shape[1]

    @property
    def kind(self) -> Kind:
        return "sklearn"

    @property
    def name(self) -> str:
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name=INPUT, dtype="float32", shape=(BATCH, self._features)),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name=self._output, dtype="float32", shape=(BATCH, self._width)),)

    @property
    def one_at_a_time(self) -> bool:
        return False

    @property
    def parameters(self) -> int:
        """Numbers in the fitted arrays (coefficients, support vectors, thresholds and values of trees)."""
        return sum(_arrays(self.estimator, 0, set()))

    @property
    def activation(self) -> str | None:
        return "softmax" if self._output == "probabilities" else None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns that it was fitted on; none where it was fitted on a plain matrix."""
        return tuple(str(each) for each in getattr(self.estimator, "feature_names_in_", ()))

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the first output's columns; none for a regressor."""
        return tuple(str(each) for each in getattr(self.estimator, "classes_", ()))

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {self._output: self._answers(np.asarray(inputs[INPUT], np.float32))}

    def to_onnx(self) -> bytes:
        """The estimator as ONNX with the names of this source, by skl2onnx; the label output is left out.

        Raises `UnsupportedOperator` with the estimator that skl2onnx cannot translate.
        """
        skl2onnx = load_tool("skl2onnx")
        onnx = load_tool("onnx")
        final = _final(self.estimator)
        wanted = {"zipmap": False, "raw_scores": self._output == "scores"}
        try:
            with quiet("skl2onnx"):
                types = [(INPUT, skl2onnx.common.data_types.FloatTensorType([None, self._features]))]
                options = {id(final): {key: value for key, value in wanted.items() if key in _options(final)}}
                model = skl2onnx.convert_sklearn(
                    self.estimator, initial_types=types, options=options, target_opset=OPSET, name=self._name
                )
        except ConversionFailed as error:
            raise UnsupportedOperator(
                type(final).__name__, f"skl2onnx cannot translate this estimator ({_reason(error)}); {DISTILL}"
            ) from error
        kept = [value.name for value in model.graph.output][-1:]  # a label comes first
        with quiet("keeping the model's answers"):
            model = onnx.utils.Extractor(model).extract_model([INPUT], kept)
        _rename_output(model, kept[0], self.outputs[0])
        opsets = {each.domain: each for each in model.opset_import}  # the extractor may list one twice
        del model.opset_import[:]
        model.opset_import.extend(opsets.values())
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _answers(self, x: np.ndarray) -> np.ndarray:
        """float32 ``(rows, classes or targets)``."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                answers = getattr(self.estimator, self._method)(x)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise UnsupportedModel(
                f"{type(self.estimator).__name__} does not take a matrix of {self._features} numbers a row: {error}. "
                "Encode texts and categories before the model, and give the estimator behind that"
            ) from error
        if isinstance(answers, list) or np.ndim(answers) > 2:
            raise UnsupportedModel(
                f"{type(self.estimator).__name__} answers several questions at once; give one model each"
            )
        answers = np.asarray(answers, np.float32)
        if answers.ndim == 1:
            answers = np.stack([-answers, answers], axis=1) if self._output == "scores" else answers[:, np.newaxis]
        return answers


def load_pickle(path: Path, *, trust_pickle: bool, say: Callable[[str], None] | None = None) -> Any:
    """Unpickle with joblib, only if the user said so: unpickling runs whatever code the file holds."""
    if not trust_pickle:
        raise PickleRefused(
            f"{path} is a pickle: loading it runs whatever code it holds. If you trust its origin, say so with "
            "--trust-pickle (trust_pickle=True); else store the estimator with skops, load it with a list of trusted "
            "types and give the object to converters.SklearnSource, or convert it where it was trained with skl2onnx "
            "and give the .onnx"
        )
    joblib = load_tool("joblib")
    load_tool("sklearn")
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file")
    try:
        with quiet(f"unpickling {path}"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = joblib.load(path)
    except ConversionFailed as error:
        raise ModelUnreadable(f"{path} cannot be loaded with the packages that are installed here: {error}") from error
    for each in caught:
        if say and "InconsistentVersion" in each.category.__name__:
            say(f"{path}: {str(each.message).splitlines()[0]}")
    return loaded


def _features(estimator: Any) -> int:
    validation = load_tool("sklearn.utils.validation")
    exceptions = load_tool("sklearn.exceptions")
    try:
        validation.check_is_fitted(estimator)
        return int(estimator.n_features_in_)
    except (exceptions.NotFittedError, AttributeError, TypeError) as error:
        raise UnsupportedModel(
            f"{type(estimator).__name__} is not fitted on a matrix of features; call its fit(X, y) first"
        ) from error


def _final(estimator: Any) -> Any:
    """The estimator that answers: the last step of a pipeline, the best one of a search."""
    while True:
        inner = getattr(estimator, "best_estimator_", None)
        steps = getattr(estimator, "steps", None)
        if inner is None and not steps:
            return estimator
        estimator = inner if inner is not None else steps[-1][1]


def _options(estimator: Any) -> frozenset[str]:
    """Names of the options that skl2onnx has for an estimator."""
    from skl2onnx._supported_operators import get_model_alias
    from skl2onnx.common._registration import get_converter

    allowed = get_converter(get_model_alias(type(estimator))).get_allowed_options()
    return frozenset(allowed or ())


def _reason(error: ConversionFailed) -> str:
    cause = error.__cause__
    return f"{type(cause).__name__}: {str(cause).splitlines()[0][:160] if str(cause) else ''}"


def _rename_output(model: Any, old: str, spec: TensorSpec) -> None:
    """``old`` under the spec's name and with its axes; inner tensors of that name make way."""
    others = {name for node in model.graph.node for name in node.output} - {old}
    names = {old: spec.name} | ({spec.name: f"{spec.name}_inner"} if spec.name in others else {})
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value, shape in ((model.graph.output[0], spec.shape), (model.graph.input[0], None)):
        value.name = names.get(value.name, value.name)
        dims = value.type.tensor_type.shape
        if shape is not None:
            del dims.dim[:]
            dims.dim.add()
            dims.dim.add(dim_value=int(shape[1]))
        dims.dim[0].dim_param = BATCH


def _arrays(value: Any, depth: int, seen: set[int]) -> Iterator[int]:
    """Sizes of the arrays in an estimator's fitted attributes, those of its parts included, each once."""
    if id(value) in seen or depth > MAX_DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield int(value.size)
        elif value.dtype.kind == "O":
            for each in value.ravel():
                yield from _arrays(each, depth + 1, seen)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _arrays(each, depth + 1, seen)
    elif hasattr(value, "node_count") and hasattr(value, "threshold"):  # one decision tree
        yield int(value.threshold.size + value.value.size)
    elif hasattr(value, "get_params"):
        fitted = {key: each for key, each in vars(value).items() if key.endswith("_") or key == "_fit_X"}
        for each in (*fitted.values(), *(step for _, step in getattr(value, "steps", ()))):
            yield from _arrays(each, depth + 1, seen)
