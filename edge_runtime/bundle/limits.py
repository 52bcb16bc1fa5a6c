"""Every cap of the bundle format, as a number. FORMAT.md states the same numbers; a test compares them."""

from __future__ import annotations

__all__ = [
    "CONFIDENCE_BINS",
    "FEATURE_BINS",
    "FEATURE_CELLS",
    "FEATURE_EDGES",
    "MAX_ARCHIVE_BYTES",
    "MAX_ARTIFACTS",
    "MAX_AXES",
    "MAX_CEILING_STEPS",
    "MAX_CLASS_CELLS",
    "MAX_CRITICAL",
    "MAX_DELTAS",
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "MAX_ENTRY_NAME",
    "MAX_FEATURES",
    "MAX_FILE_BYTES",
    "MAX_FLOAT_OPERATORS",
    "MAX_GOLDEN_TOLERANCE",
    "MAX_GUARD_DIRECTIONS",
    "MAX_GUARD_PARTS",
    "MAX_GUARD_SUMMARIES",
    "MAX_HYBRID_RELEASES",
    "MAX_INTEGER",
    "MAX_KEPT_FLOAT",
    "MAX_LABELS",
    "MAX_MANIFEST_BYTES",
    "MAX_OPERATORS",
    "MAX_PACKAGES",
    "MAX_POLICY_BYTES",
    "MAX_RELEASE",
    "MAX_RELEASE_BYTES",
    "MAX_REQUIREMENT_NAMES",
    "MAX_REVOKED",
    "MAX_SEEDS",
    "MAX_SEGMENTS",
    "MAX_TEMPERATURE",
    "MAX_TENSORS",
    "MAX_TENSOR_ELEMENTS",
    "MAX_TUF_BYTES",
    "MAX_TUF_FILE_BYTES",
    "PARTS",
    "SHARE_SUM_TOLERANCE",
]

# The archive.
MAX_ARCHIVE_BYTES = 2_147_483_648  # so that no field of a zip without zip64 can overflow
MAX_ENTRIES = 256
MAX_ENTRY_NAME = 255  # bytes of an entry's whole path
MAX_TUF_FILE_BYTES = 5_000_000  # of one file in tuf/; what python-tuf accepts for targets metadata
MAX_TUF_BYTES = 16_777_216  # of all files in tuf/ together, since a reader holds them in memory

# Documents, in bytes.
MAX_MANIFEST_BYTES = 1_048_576
MAX_RELEASE_BYTES = 65_536
MAX_POLICY_BYTES = 65_536
MAX_FILE_BYTES = 2_147_483_648  # of any file that a manifest or release.json refers to

# JSON.
MAX_DEPTH = 16  # nested lists and objects; the manifest needs 5, a plan's predicate the most
MAX_INTEGER = 9_007_199_254_740_991  # 2**53 - 1, the largest whole number that every JSON reader keeps (RFC 7493)
MAX_RELEASE = 2_147_483_647

# Lists of the manifest, in elements.
MAX_CRITICAL = 64
MAX_TENSORS = 64
MAX_AXES = 8
MAX_TENSOR_ELEMENTS = 268_435_456  # product of a tensor's sizes, its named axes counted as 1
MAX_LABELS = 4_096
MAX_ARTIFACTS = 15  # three targets, five precisions
MAX_OPERATORS = 1_024
MAX_FLOAT_OPERATORS = 4_096
MAX_KEPT_FLOAT = 1_024
MAX_FEATURES = 64
MAX_REQUIREMENT_NAMES = 32
MAX_HYBRID_RELEASES = 64
MAX_SEEDS = 64
MAX_PACKAGES = 256
MAX_SEGMENTS = 256  # of edge cases too
MAX_GUARD_PARTS = 64
MAX_GUARD_SUMMARIES = 64
MAX_GUARD_DIRECTIONS = 8

# Lists of the other documents, in elements.
MAX_CEILING_STEPS = 64
MAX_DELTAS = 64
MAX_REVOKED = 4_096

# Telemetry: a feature has a cell below, FEATURE_BINS bins, a cell above and one for missing values.
FEATURE_BINS = 16
FEATURE_EDGES = 17
FEATURE_CELLS = 19
CONFIDENCE_BINS = 20
MAX_CLASS_CELLS = 32
SHARE_SUM_TOLERANCE = 0.001  # how far the shares of one histogram may sum from 1, so that a writer may round them

# Values.
MAX_TEMPERATURE = 1_000.0
MAX_GOLDEN_TOLERANCE = 4.0  # per output element; a device never accepts a larger difference, whatever a manifest says
PARTS = 100_000_000  # shares of a fleet are whole parts of this
