"""Errors of the converters.

EdgeshipError
└── ConverterError
    ├── DataError                 calibration or evaluation data; the text names the file and the key
    │   ├── DataUnreadable        missing, not an .npz file, damaged, or holding Python objects
    │   ├── WrongNames            an array is missing, or named like no input
    │   ├── WrongShape            an array's shape is not (rows, *the model's shape)
    │   ├── WrongDtype            an array's dtype cannot be used for that input
    │   ├── NonFiniteData         NaN or infinity
    │   ├── LabelMismatch         labels are missing, of another length, or not classes of this model
    │   ├── SameRows              what is to be judged on rows was chosen on the same ones
    │   └── TooLittleData         fewer rows than the step needs
    ├── SourceError               the model that was given
    │   ├── ModelUnreadable       no such file, or not one of the format it should have
    │   ├── PickleRefused         a pickle runs code when loaded, and was not said to be trusted
    │   ├── UnsupportedModel      readable, but of a kind that this version cannot convert
    │   └── UnsupportedOperator   `operator` is the first one outside what the target or evaluator knows
    ├── ConversionFailed          `stage` failed; `tool_output` is what the tool printed
    │   └── StageFailed           its process crashed, or ran out of memory or time
    ├── CheckFailed               a converted model that does not hold what was promised; it was not kept
    │   └── QuantizationRefused   too few of the weights in INT8 to be called int8
    ├── ToolMissing               a package of the extra `convert` is not installed here
    ├── InvalidRequest            an option, target, precision or recipe that does not exist
    └── OutputError               the output folder
        ├── OutputExists          it holds something that would be overwritten
        └── OutputFull            no space left; nothing was half-written
"""

from __future__ import annotations

from edge_runtime.bundle.errors import EdgeshipError

__all__ = [
    "CheckFailed",
    "ConversionFailed",
    "ConverterError",
    "DataError",
    "DataUnreadable",
    "InvalidRequest",
    "LabelMismatch",
    "ModelUnreadable",
    "NonFiniteData",
    "OutputError",
    "OutputExists",
    "OutputFull",
    "PickleRefused",
    "QuantizationRefused",
    "SameRows",
    "SourceError",
    "StageFailed",
    "TooLittleData",
    "ToolMissing",
    "UnsupportedModel",
    "UnsupportedOperator",
    "WrongDtype",
    "WrongNames",
    "WrongShape",
]


LONGEST = 600  # characters of a tool's own message; TensorFlow prints whole graphs


class ConverterError(EdgeshipError):
    """Root of every error of the converters."""


class DataError(ConverterError):
    """Calibration or evaluation data that cannot be used."""


class DataUnreadable(DataError):
    """Missing, not an ``.npz`` file, damaged, or holding Python objects."""


class WrongNames(DataError):
    """An array is missing, or named like no input of the model."""


class WrongShape(DataError):
    """An array's shape is not ``(rows, *shape)``."""


class WrongDtype(DataError):
    """An array's dtype cannot be used for that input."""


class NonFiniteData(DataError):
    """An array holds NaN or infinity."""


class LabelMismatch(DataError):
    """Labels are missing, of another length than the inputs, or not classes of this model."""


class SameRows(DataError):
    """What is to be judged on these rows was chosen on them."""


class TooLittleData(DataError):
    """Fewer rows than the step needs."""


class SourceError(ConverterError):
    """The model that was given cannot be converted."""


class ModelUnreadable(SourceError):
    """No such file, or not one of the format it should have."""


class PickleRefused(SourceError):
    """A pickle, which runs code when it is loaded, and nobody said that its origin is trusted."""


class UnsupportedModel(SourceError):
    """Readable, but of a kind that this version cannot convert."""


class UnsupportedOperator(SourceError):
    """An operator outside what the target or the evaluator knows; its name is in ``operator``."""

    def __init__(self, operator: str, message: str) -> None:
        super().__init__(f"{operator}: {message}")
        self.operator = operator


class ConversionFailed(ConverterError):
    """A tool failed in ``stage``; ``tool_output`` is the end of what it printed."""

    def __init__(self, stage: str, message: str, *, tool_output: str = "") -> None:
        text = f"{stage}: {message if len(message) <= LONGEST else message[:LONGEST] + ' …'}"
        if tool_output:
            text += f"\n--- the tool's last output ---\n{tool_output}"
        super().__init__(text)
        self.stage = stage
        self.tool_output = tool_output


class StageFailed(ConversionFailed):
    """The process of a stage crashed, or ran out of memory or time."""


class CheckFailed(ConverterError):
    """A converted model that does not hold what was promised; it was not kept."""


class QuantizationRefused(CheckFailed):
    """Less than the promised share of the weights is in INT8, so it is not called int8."""


class ToolMissing(ConverterError):
    """A package of the extra ``convert`` is not installed here."""


class InvalidRequest(ConverterError):
    """An option, target, precision or recipe that does not exist, or a value that it cannot have."""


class OutputError(ConverterError):
    """The output folder cannot be written."""


class OutputExists(OutputError):
    """It holds something that would be overwritten."""


class OutputFull(OutputError):
    """No space left; nothing was half-written."""
