"""Small releases of made-up bytes, and archives with one thing wrong. No engine, no NumPy."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_runtime.bundle import (
    Artifact,
    Confidence,
    Delta,
    Feature,
    FileRef,
    Golden,
    Guard,
    GuardPart,
    Hybrid,
    KeptFloat,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    ReleaseDocument,
    Requirements,
    Segment,
    TensorSpec,
    target_path,
    write_bundle,
    write_manifest,
)
from edge_runtime.bundle.manifest import Reference

ZERO = "0" * 64
LABELS = ("raise", "rotate", "rest")
WINDOW = TensorSpec(name="window", dtype="float32", shape=("batch", 100, 6), range=(-20.0, 20.0), unit="m/s²")
LOGITS = TensorSpec(name="logits", dtype="float32", shape=("batch", 3))
CONTEXT = TensorSpec(name="context", dtype="float32", shape=("windows", 100, 6))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_ref(file: str, data: bytes) -> FileRef:
    return FileRef(file=file, bytes=len(data), sha256=sha256(data))


def feature(**changes: Any) -> Feature:
    return replace(
        Feature(
            name="gyro-z mean",
            input="window",
            reduce="mean",
            index=5,
            edges=tuple(i / 8 for i in range(-8, 9)),
            shares=(0.0, *[1 / 16] * 16, 0.0, 0.0),
        ),
        **changes,
    )


def reference(**changes: Any) -> Reference:
    return replace(Reference(features=(feature(),), classes=(0.5, 0.25, 0.25), confidence=(0.05,) * 20), **changes)


def guard(**changes: Any) -> Guard:
    """Three summaries of `WINDOW`."""
    return replace(
        Guard(
            score="mahalanobis",
            parts=(GuardPart(input="window", reduce=("mean", "log_std", "roughness"), stride=2),),
            center=(0.0, 1.0, 0.5),
            scale=(1.0, 0.25, 0.125),
            directions=((0.6, 0.8, 0.0),),
            variances=(2.0,),
            residual=0.5,
            threshold=3.0,
            false_refusal=0.01,
            rows=500,
            data_sha256=ZERO,
        ),
        **changes,
    )


def artifact(data: bytes = b"a model", golden: bytes = b"golden examples", **changes: Any) -> Artifact:
    return replace(
        Artifact(
            target="onnx",
            precision="fp32",
            file="model-fp32.onnx",
            bytes=len(data),
            sha256=sha256(data),
            operators=("Conv", "com.microsoft:FusedConv"),
            float_operators=(),
            minimum_engine_version="1.22",
            peak_memory_bytes=1_000_000,
            measured=Measurement(
                accuracy=0.9,
                rows=400,
                latency_p50_us=51.5,
                machine="a laptop",
                evaluated_with="onnxruntime 1.32.0",
                metric="accuracy",
                source_accuracy=0.91,
                decision_agreement=0.98,
                max_abs_error=0.25,
                latency_aa_ratio=1.02,
            ),
            confidence=Confidence(
                score="msp",
                temperature=1.5,
                threshold=0.7,
                target_risk=0.05,
                calibration_sha256=ZERO,
                delta=0.1,
                coverage=0.8,
                method="fixed-sequence testing",
            ),
            reference=reference(),
            golden=Golden(file="model-fp32.onnx.golden.npz", bytes=len(golden), sha256=sha256(golden), tolerance=0.001),
            kept_float=(KeptFloat(unit="stem", reason="without it 2.1 points are lost"),),
        ),
        **changes,
    )


def manifest(**changes: Any) -> Manifest:
    """A valid manifest in which every optional part is stated, for the files of `FILES`."""
    return replace(
        Manifest(
            model="exercise",
            release=2,
            version="2.0.0",
            created="2026-11-22T23:00:00Z",
            owner="Alice",
            contact="alice@example.com",
            inputs=(WINDOW,),
            outputs=(LOGITS,),
            labels=LABELS,
            preprocessing=Preprocessing(
                in_graph="normalise\nper axis", caller="", examples=file_ref("examples.npz", FILES["examples.npz"])
            ),
            artifacts=(artifact(FILES["model-fp32.onnx"], FILES["model-fp32.onnx.golden.npz"]),),
            requirements=Requirements(arch=("x86_64", "arm64"), os=("linux",), ram_bytes=1 << 20),
            hybrid=Hybrid(model="exercise-teacher", releases=(1,), inputs=(CONTEXT, WINDOW)),
            lineage=Lineage(
                dataset="shoulder exercises",
                dataset_sha256=ZERO,
                data_version="1",
                collected="2018",
                personal_data=True,
                consent_purpose="research",
                seeds=(0, 1, 2),
                packages={"keras": "3.15.1"},
                dvc="md5 d41d8cd98f00b204e9800998ecf8427e data/train.npz",
                trained="2026-11-20",
            ),
            segments=(Segment(name="subject 9", rows=500, accuracy=0.85),),
            card=file_ref("card.md", FILES["card.md"]),
            task="classification",
            edge_cases=(Segment(name="left-handed", rows=40, accuracy=0.7),),
            guard=guard(),
        ),
        **changes,
    )


FILES: Mapping[str, bytes] = {
    "model-fp32.onnx": b"a model",
    "model-fp32.onnx.golden.npz": b"golden examples",
    "examples.npz": b"raw examples",
    "card.md": b"# A card\n",
}


def document() -> dict[str, Any]:
    """`manifest` as plain JSON values, to break."""
    value = json.loads(write_manifest(manifest()))
    assert isinstance(value, dict)
    return value


def release_document(**changes: Any) -> ReleaseDocument:
    delta = Delta(artifact="model-fp32.onnx", from_release=1, file="model-fp32.onnx.from-1.delta", bytes=7, sha256=ZERO)
    return replace(
        ReleaseDocument(
            model="exercise",
            release=2,
            ceiling=((0, 1_000_000), (86_400, 100_000_000)),
            deltas=(delta,),
            audit_head=ZERO,
        ),
        **changes,
    )


def paths(files: Mapping[str, bytes] = FILES, document: bytes | None = None) -> dict[str, bytes]:
    """The entries of a bundle of `manifest` and ``files``."""
    entries = {"manifest.json": write_manifest(manifest()) if document is None else document, **files}
    return {target_path("exercise", 2, name): data for name, data in entries.items()}


def bundle() -> bytes:
    out = io.BytesIO()
    write_bundle(out, paths())
    return out.getvalue()


@dataclass
class RawEntry:
    """One entry of a forged archive; every field of both headers can be lied about."""

    name: bytes
    data: bytes
    local: dict[str, int] = field(default_factory=dict)
    central: dict[str, int] = field(default_factory=dict)
    local_name: bytes | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    comment: bytes = b""
    stored: bytes | None = None  # what stands in the archive, if not ``data``
    before: bytes = b""  # a gap
    descriptor: bytes = b""


def forge(entries: list[RawEntry], *, before_directory: bytes = b"", end: Mapping[str, int] | None = None,
          before_end: bytes = b"", tail: bytes = b"") -> bytes:  # fmt: skip
    """A zip written by hand. Without lies it is what `write_bundle` writes for the same entries in the same order."""
    out = bytearray()
    directory = bytearray()
    for e in entries:
        stored = e.data if e.stored is None else e.stored
        out += e.before
        fields = {
            "needed": 10, "flags": 0, "method": 0, "time": 0, "date": 0x21, "crc": zlib.crc32(e.data),
            "compressed": len(stored), "size": len(e.data), "extra": len(e.local_extra),
        }  # fmt: skip
        local_name = e.name if e.local_name is None else e.local_name
        here = {**fields, "name": len(local_name), **e.local}
        offset = len(out)
        order = ("needed", "flags", "method", "time", "date", "crc", "compressed", "size", "name", "extra")
        out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *(here[k] for k in order))
        out += local_name + e.local_extra + stored + e.descriptor
        there = {
            **fields, "made_by": 0x030A, "name": len(e.name), "extra": len(e.central_extra), "comment": len(e.comment),
            "disk": 0, "internal": 0, "external": 0o100644 << 16, "offset": offset, **e.central,
        }  # fmt: skip
        order = ("made_by", "needed", "flags", "method", "time", "date", "crc", "compressed", "size", "name", "extra",
                 "comment", "disk", "internal", "external", "offset")  # fmt: skip
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *(there[k] for k in order))
        directory += e.name + e.central_extra + e.comment
    out += before_directory
    last = {
        "disk": 0, "directory_disk": 0, "here": len(entries), "entries": len(entries), "size": len(directory),
        "offset": len(out), "comment": 0, **(end or {}),
    }  # fmt: skip
    out += directory + before_end
    order = ("disk", "directory_disk", "here", "entries", "size", "offset", "comment")
    return bytes(out + struct.pack("<4sHHHHIIH", b"PK\5\6", *(last[k] for k in order)) + tail)


def raw_entries(change: Callable[[dict[str, RawEntry]], None] | None = None) -> list[RawEntry]:
    """The entries of `bundle`, in order, after ``change`` was applied to them by their last path component."""
    entries = {name.rpartition("/")[2]: RawEntry(name.encode(), data) for name, data in sorted(paths().items())}
    if change is not None:
        change(entries)
    return list(entries.values())


def put(document: Any, path: str, value: object) -> None:
    """Set what stands at a key path like ``artifacts[0].golden.tolerance``."""
    parent, key = _find(document, path)
    parent[key] = value


def remove(document: Any, path: str) -> None:
    """Delete what stands at a key path."""
    parent, key = _find(document, path)
    del parent[key]


def _find(document: Any, path: str) -> tuple[Any, Any]:
    keys = [int(part) if part.isdecimal() else part for part in path.replace("]", "").replace("[", ".").split(".")]
    for key in keys[:-1]:
        document = document[key]
    return document, keys[-1]
