"""The grammars of strings in a manifest; those of model and file names are in `names`."""

from __future__ import annotations

import re

__all__ = ["AXIS_NAME", "CRITICAL", "ENGINE_VERSION", "OPERATOR", "PACKAGE", "SHA256", "TENSOR_NAME", "TIMESTAMP"]

SHA256 = re.compile(r"[0-9a-f]{64}")
TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
TENSOR_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
AXIS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
OPERATOR = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
ENGINE_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")
CRITICAL = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}")
PACKAGE = re.compile(r"[A-Za-z0-9._-]{1,64}")
