"""Archives that a stranger could send: at least one test for each reading rule of FORMAT.md."""

from __future__ import annotations

import gzip
import io
import json
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import (
    ArchiveError,
    BundleError,
    BundleTooLarge,
    DigestMismatch,
    InvalidName,
    ManifestError,
    PolicyDocument,
    UnsupportedFormat,
    open_bundle,
    write_manifest,
    write_policy,
    write_release,
)
from tests.support import bundles
from tests.support.bundles import RawEntry, forge, raw_entries

MODEL = "model-fp32.onnx"
HERE = b"models/exercise/2/"


def refused(data: bytes, error: type[BundleError] = ArchiveError, match: str | None = None) -> BundleError:
    with pytest.raises(error, match=match) as caught:
        open_bundle(data)
    return caught.value


def forged(change: Callable[[dict[str, RawEntry]], None], **archive: Any) -> bytes:
    return forge(raw_entries(change), **archive)


def with_entries(*more: RawEntry) -> bytes:
    """The valid bundle with entries added, in their right places."""
    return forge(sorted([*raw_entries(), *more], key=lambda entry: entry.name))


def with_document(change: Callable[[dict[str, Any]], object], files: dict[str, bytes] | None = None) -> bytes:
    """A bundle with a changed manifest (and files), otherwise packed well."""
    document = bundles.document()
    change(document)
    entries = bundles.paths({**bundles.FILES, **(files or {})}, json.dumps(document).encode())
    return forge([RawEntry(name.encode(), data) for name, data in sorted(entries.items())])


def test_the_forger_without_a_lie_makes_a_good_bundle() -> None:
    assert forge(raw_entries()) == bundles.bundle()
    open_bundle(with_document(lambda d: None))


# Not a bundle at all


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"\0" * 22,
        b"\0" * 10_000,
        b"PK\5\6" + bytes(18),  # an empty zip
        gzip.compress(b"x" * 1000, mtime=0),
        b'{"format":1}',
        b"PK\5\6" * 1000,
    ],
    ids=range(8),
)
def test_bytes_that_are_no_bundle(data: bytes) -> None:
    refused(data)


def test_a_tar_of_the_same_files() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in bundles.paths().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    refused(out.getvalue())


def test_every_truncation() -> None:
    data = bundles.bundle()
    for length in range(len(data)):
        refused(data[:length])


def test_bytes_after_the_end() -> None:
    for tail in (b"\0", b"\n", bundles.bundle(), b"PK\5\6" + bytes(18)):
        refused(bundles.bundle() + tail)


def test_bytes_before_the_beginning() -> None:
    refused(b"#!/bin/sh\n" + bundles.bundle())
    refused(forged(lambda e: setattr(e["card.md"], "before", b"#!/bin/sh\n")), match="offset|end at byte")


def test_an_archive_hidden_in_the_comment_of_the_end_record() -> None:
    data = bundles.bundle()
    refused(data[:-2] + struct.pack("<H", 4) + b"evil")
    inner = bundles.bundle()
    refused(data[:-2] + struct.pack("<H", len(inner)) + inner)


# Caps


def test_too_many_entries() -> None:
    refused(with_entries(*(RawEntry(b"tuf/%03d.json" % i, b"{}") for i in range(252))), BundleTooLarge, "257 entries")


def test_an_entry_count_that_is_a_lie() -> None:
    for count in (1, 4, 6, 65_534):
        refused(forge(raw_entries(), end={"entries": count, "here": count}))
    refused(forge(raw_entries(), end={"entries": 5, "here": 4}), match="on this disk")


def test_too_many_bytes_are_refused_by_the_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge.bundle"
    with path.open("wb") as stream:
        stream.truncate(2**31 + 1)  # a sparse file
    with pytest.raises(BundleTooLarge, match="2147483649 bytes"):
        open_bundle(path)


def test_a_declared_size_beyond_the_archive() -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        lie = {"size": 2**31 - 1, "compressed": 2**31 - 1}
        entries[MODEL].local = lie
        entries[MODEL].central = lie

    refused(forged(change))


def test_an_oversized_manifest_is_refused_before_it_is_read() -> None:
    refused(with_document(lambda d: d.update(padding="x" * 1_048_576)), BundleTooLarge, "manifest.json")


@pytest.mark.parametrize("name", [b"models/exercise/2/release.json", b"models/exercise/policy.json"])
def test_oversized_documents(name: bytes) -> None:
    refused(with_entries(RawEntry(name, b"{}" + b" " * 65_536)), BundleTooLarge, "65538 bytes")


def test_oversized_metadata() -> None:
    refused(with_entries(RawEntry(b"tuf/root.json", bytes(5_000_001))), BundleTooLarge, "root.json")
    four = [RawEntry(b"tuf/%d.json" % i, bytes(4_500_000)) for i in range(4)]
    refused(with_entries(*four), BundleTooLarge, "together|more than 16777216")


def test_a_central_directory_larger_than_its_entries_can_need() -> None:
    refused(forge(raw_entries(), before_end=bytes(5000)), match="central directory")


def test_paths_deeper_than_a_release() -> None:
    for name in (HERE + b"a/b", HERE + b"a/b/c/d/e/f", b"tuf/a/b.json", b"models/a/b/c/2/x"):
        refused(with_entries(RawEntry(name, b"x")), InvalidName)
    refused(with_entries(RawEntry(HERE + b"a/" * 150 + b"b", b"x")), match="name of")


# Compression and encryption


def test_compressed_entries_and_so_every_ratio() -> None:
    bomb = bytes(50_000_000)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bomb) + deflate.flush()

    def change(entries: dict[str, RawEntry]) -> None:
        entries[MODEL] = RawEntry(entries[MODEL].name, bomb, stored=packed)
        entries[MODEL].local = entries[MODEL].central = {"method": 8}

    data = forged(change)
    assert len(data) < 60_000
    refused(data, match="compress")


@pytest.mark.parametrize("method", [1, 8, 9, 12, 14, 93, 95, 99])
def test_every_other_compression_method(method: int) -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        entries[MODEL].local = entries[MODEL].central = {"method": method}

    refused(forged(change), match="compression method")


def test_stored_and_unpacked_sizes_that_differ() -> None:
    refused(forged(lambda e: e[MODEL].central.update(size=6)))
    refused(forged(lambda e: e[MODEL].central.update(compressed=6)), match="compressed size")


@pytest.mark.parametrize("bit", range(16))
def test_every_flag_among_them_encryption_data_descriptor_and_utf8_names(bit: int) -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        entries[MODEL].local = entries[MODEL].central = {"flags": 1 << bit}

    refused(forged(change), match="flags")


def test_sizes_in_a_data_descriptor() -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        entry = entries[MODEL]
        entry.descriptor = b"PK\7\x08" + struct.pack("<III", zlib.crc32(entry.data), len(entry.data), len(entry.data))

    refused(forged(change), match="offset|end at byte")


# Files that are not regular files


@pytest.mark.parametrize(
    "mode",
    [
        *(stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o666),
        *(stat.S_IFSOCK | 0o666, stat.S_IFREG | 0o4755, stat.S_IFREG | 0o755, 0),
    ],
)
def test_links_folders_devices_and_other_modes(mode: int) -> None:
    refused(forged(lambda e: e[MODEL].central.update(external=mode << 16)), match="file mode")


def test_a_link_whose_text_is_the_target() -> None:
    link = RawEntry(HERE + b"link", b"/etc/passwd", central={"external": (stat.S_IFLNK | 0o777) << 16})
    refused(with_entries(link), match="a link")


def test_a_folder_entry() -> None:
    refused(with_entries(RawEntry(HERE, b"")), InvalidName)
    refused(with_entries(RawEntry(b"tuf/", b"")), InvalidName)


@pytest.mark.parametrize("field", ["made_by", "needed", "internal", "disk", "time", "date"])
def test_every_other_field_with_another_value(field: str) -> None:
    refused(forged(lambda e: e[MODEL].central.update({field: 20})))


# Names


@pytest.mark.parametrize(
    "name",
    [
        *(b"/etc/passwd", b"//server/share/x", b"\\\\server\\share\\x", b"C:\\x", b"C:x", b"C:/x", b"file:///x"),
        *(b"../x", b"../../etc/passwd", b"models/../../x", HERE + b"..", HERE + b"../x", HERE + b".", HERE + b"./x"),
        *(b"..\\x", HERE + b"..\\x", b"models\\exercise\\2\\x", HERE + b"a\\b"),
        *(HERE + b"a:b", HERE + b"a*", HERE + b'"', HERE + b"a b", HERE + b" "),
        *(HERE + b"a.", HERE + b".a", HERE + b"~", HERE + b"$HOME", HERE + b"%00", HERE + b"a%2fb"),
        *(HERE + b"-rf", HERE + b"a\n", HERE + b"\x1b[2J", HERE + b"x" * 129, b"x", b"models/exercise", b"/", b"//"),
        *(HERE + n for n in (b"con", b"CON", b"nul.onnx", b"Aux.txt", b"com1", b"LPT9.x.y", b"prn.", b"com0")),
        *(b"models/con/2/x", b"models/Exercise/2/x", b"models/exercise/02/x", b"models/exercise/+2/x"),
        *(b"models/exercise/0/x", b"models/exercise/2147483648/x", b"models/exercise/2/2/x", b"models//2/x"),
        *(b"Models/exercise/2/x", b"tuf/root", b"tuf/root.json.exe", b"tuf/.json", b"tuf/nul.json", b"TUF/root.json"),
        *(b"tuf/../x.json", b"rollouts/stable/exercise.json", b"models/exercise/other.json", HERE + b"policy.json"),
    ],
)  # fmt: skip
def test_names_outside_the_grammar(name: bytes) -> None:
    refused(with_entries(RawEntry(name, b"{}")), InvalidName)


@pytest.mark.parametrize("name", [HERE + "é".encode(), HERE + b"\xff", HERE + b"a\0b", HERE + b"card.md\0.txt", b""])
def test_names_that_are_not_ascii_or_hold_nul_or_nothing(name: bytes) -> None:
    refused(with_entries(RawEntry(name, b"x")), match="name")


def test_a_name_longer_than_any_path() -> None:
    refused(with_entries(RawEntry(b"tuf/" + b"x" * 252, b"{}")), match="name of 256 bytes")
    refused(with_entries(RawEntry(b"x" * 65_535, b"{}")))


def test_the_same_name_twice() -> None:
    for data in (b"a model", b"another"):
        refused(with_entries(RawEntry(HERE + MODEL.encode(), data)), match="appears twice")
    refused(with_entries(RawEntry(HERE + b"manifest.json", write_manifest(bundles.manifest()))), match="appears twice")


@pytest.mark.parametrize("name", [HERE + b"CARD.md", HERE + b"Manifest.json", b"tuf/Root.json"])
def test_names_that_collide_where_case_does_not_matter(name: bytes) -> None:
    root = RawEntry(b"tuf/root.json", b"{}")
    refused(with_entries(RawEntry(name, b"x"), root), match="where case does not matter")


@pytest.mark.parametrize(
    "name", ["e\u0301.bin", "é.bin", "ﬁle.bin", "ＣARD.md", "card\u200b.md", "\u212aard.md", "ſ.md"]
)
def test_names_that_collide_after_unicode_normalisation_or_folding(name: str) -> None:
    for flags in (0, 0x800):
        entry = RawEntry(HERE + name.encode(), b"x", local={"flags": flags}, central={"flags": flags})
        refused(with_entries(entry), match="not ASCII")


def test_names_out_of_order() -> None:
    entries = raw_entries()
    refused(forge(entries[::-1]), match="out of order")


# The two headers of an entry


@pytest.mark.parametrize("field", ["needed", "flags", "method", "time", "date", "crc", "compressed", "size"])
def test_a_local_header_that_disagrees_with_the_central_one(field: str) -> None:
    refused(forged(lambda e: e[MODEL].local.update({field: 1})), match="disagrees")


def test_a_local_name_that_disagrees_with_the_central_one() -> None:
    for name in (HERE + b"model-fp33.onnx", HERE + b"MODEL-fp32.onnx", b"../../../../../etc/init.d/xyz"):
        refused(forged(lambda e, n=name: setattr(e[MODEL], "local_name", n)))  # type: ignore[misc]


@pytest.mark.parametrize(
    "extra", [b"\1\0\x10\0" + bytes(16), b"up\x05\0\1abcd", b"x"], ids=["zip64", "unicode path", "x"]
)
def test_extra_fields(extra: bytes) -> None:
    refused(forged(lambda e: setattr(e[MODEL], "local_extra", extra)))
    refused(forged(lambda e: setattr(e[MODEL], "central_extra", extra)), match="extra field length")


def test_a_comment_of_an_entry() -> None:
    refused(forged(lambda e: setattr(e[MODEL], "comment", b"x")), match="comment length")


def test_a_crc_that_is_not_the_files() -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        entries[MODEL].local = entries[MODEL].central = {"crc": 1}

    refused(forged(change), match="CRC-32")


# Where entries stand


def test_two_entries_over_the_same_bytes() -> None:
    def change(entries: dict[str, RawEntry]) -> None:
        entries["manifest.json"].central = {"offset": 0}

    refused(forged(change), match="offset")


def test_an_entry_inside_another_entrys_bytes() -> None:
    inner = forge([RawEntry(HERE + b"card.md", b"hidden")])

    def change(entries: dict[str, RawEntry]) -> None:
        entries["manifest.json"].central = {"offset": 30 + len(HERE) + 7}

    refused(forged(change), match="offset")
    data = bundles.bundle()
    refused(data.replace(b"a model", inner))


def test_a_gap_between_entries_or_before_the_directory() -> None:
    refused(forged(lambda e: setattr(e["manifest.json"], "before", b"x")), match="offset")
    refused(forge(raw_entries(), before_directory=b"x"), match="end at byte")
    refused(forge(raw_entries(), before_end=b"x"))
    size = sum(46 + len(entry.name) for entry in raw_entries())
    refused(forge(raw_entries(), before_end=b"x", end={"size": size + 1}), match="1 stray bytes")
    refused(forge(raw_entries(), end={"size": size - 1, "offset": len(bundles.bundle()) - 22 - size + 1}))


@pytest.mark.parametrize("offset", [0, 1, 2**31, 2**32 - 2])
def test_a_directory_somewhere_else(offset: int) -> None:
    refused(forge(raw_entries(), end={"offset": offset}))


def test_an_entry_on_another_disk() -> None:
    for field in ("disk", "directory_disk"):
        refused(forge(raw_entries(), end={field: 1}), match="disk")


# zip64


@pytest.mark.parametrize("field", ["entries", "size", "offset"])
def test_zip64_markers_in_the_end_record(field: str) -> None:
    refused(forge(raw_entries(), end={field: 0xFFFF if field == "entries" else 0xFFFFFFFF}), match="zip64")


def test_a_zip64_end_record_before_the_end() -> None:
    data = bundles.bundle()
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 5, 5, 300, len(data))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    refused(data[:-22] + record + locator + data[-22:])


def test_zip64_markers_in_an_entry() -> None:
    for field in ("size", "compressed", "offset"):
        refused(forged(lambda e, f=field: e[MODEL].central.update({f: 0xFFFFFFFF})))  # type: ignore[misc]


def test_archives_of_other_zip_tools_are_not_bundles() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in sorted(bundles.paths().items()):
                archive.writestr(name, data)
        refused(out.getvalue(), match="not packed by write_bundle")


# What is in it


def test_a_bundle_without_a_manifest() -> None:
    entries = [e for e in raw_entries() if not e.name.endswith(b"manifest.json")]
    refused(forge(entries), match=r"has no models/<model>/<release>/manifest\.json")
    refused(forge([RawEntry(b"tuf/root.json", b"{}")]), match="has no models/")


def test_two_releases_in_one_bundle() -> None:
    other = write_manifest(replace(bundles.manifest(), release=3))
    refused(with_entries(RawEntry(b"models/exercise/3/manifest.json", other)), match="one release")
    refused(with_entries(RawEntry(b"models/exercise/1/card.md", b"x")), match="one release")
    refused(with_entries(RawEntry(b"models/other/2/card.md", b"x")), match="one release")


@pytest.mark.parametrize(("key", "value"), [("model", "other"), ("release", 3)])
def test_a_manifest_for_another_model_or_release_than_its_path(key: str, value: object) -> None:
    refused(with_document(lambda d: d.update({key: value})), match="says it is")


def test_a_release_json_for_another_model_or_release_than_its_path() -> None:
    for change in ({"model": "other"}, {"release": 3}):
        document = bundles.release_document(deltas=(), **change)
        refused(with_entries(RawEntry(HERE + b"release.json", write_release(document))), match="says it is")


def test_a_policy_json_for_another_model_than_its_path() -> None:
    data = write_policy(PolicyDocument(model="other"))
    refused(with_entries(RawEntry(b"models/exercise/policy.json", data)), match="says it is for other")
    refused(with_entries(RawEntry(b"models/other/policy.json", data)), match="another model's")


@pytest.mark.parametrize("name", list(bundles.FILES))
def test_a_file_that_is_listed_but_absent(name: str) -> None:
    entries = [e for e in raw_entries() if not e.name.endswith(b"/" + name.encode())]
    refused(forge(entries), match="listed, but not in the bundle")


def test_a_file_that_is_present_but_not_listed() -> None:
    refused(with_entries(RawEntry(HERE + b"libcustom.so", b"\x7fELF")), match=r"libcustom\.so.*lists it")
    refused(with_document(lambda d: d.update(card=None)), match=r"card\.md.*lists it")


@pytest.mark.parametrize("name", list(bundles.FILES))
def test_a_file_of_another_size(name: str) -> None:
    refused(with_document(lambda d: None, {name: bundles.FILES[name] + b"!"}), DigestMismatch, "bytes")


@pytest.mark.parametrize("name", list(bundles.FILES))
def test_a_file_of_another_sha256(name: str) -> None:
    refused(with_document(lambda d: None, {name: bundles.FILES[name].upper()}), DigestMismatch, "sha256")


def test_a_digest_that_is_stated_for_other_bytes() -> None:
    refused(with_document(lambda d: bundles.put(d, "artifacts[0].sha256", bundles.ZERO)), DigestMismatch, "sha256")
    refused(with_document(lambda d: bundles.put(d, "artifacts[0].bytes", 8)), DigestMismatch, "bytes")


def test_a_delta_that_is_absent_wrong_for_no_artifact_or_hides_an_artifact() -> None:
    document = bundles.release_document()
    entry = RawEntry(HERE + b"release.json", write_release(document))
    delta = RawEntry(HERE + b"model-fp32.onnx.from-1.delta", b"a delta")
    refused(with_entries(entry), match="not in the bundle")
    refused(with_entries(entry, delta), DigestMismatch)
    refused(with_entries(delta), match="lists it")
    other = replace(document.deltas[0], artifact="other.onnx", file="other.onnx.from-1.delta")
    entry.data = write_release(replace(document, deltas=(other,)))
    refused(with_entries(entry, RawEntry(HERE + b"other.onnx.from-1.delta", b"a delta")), match="not an artifact")

    def change(manifest: dict[str, Any]) -> None:  # the card takes the delta's name
        manifest["card"]["file"] = "model-fp32.onnx.from-1.delta"

    data = bundles.FILES["card.md"]
    manifest = bundles.document()
    change(manifest)
    files = {k: v for k, v in bundles.FILES.items() if k != "card.md"} | {"model-fp32.onnx.from-1.delta": data}
    entries = bundles.paths(files, json.dumps(manifest).encode())
    entries["models/exercise/2/release.json"] = write_release(document)
    refused(forge([RawEntry(n.encode(), d) for n, d in sorted(entries.items())]), match="listed by both")


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", ManifestError),
        (b"[]", ManifestError),
        (b'{"format":1}', ManifestError),
        (b"[" * 10_000, ManifestError),
        (b'{"a":' * 10_000, ManifestError),
        (b'{"format":1,"format":1}', ManifestError),
        (b'{"format":' + b"9" * 60_000 + b"}", ManifestError),
        (b'{"format":1,"x":NaN}', ManifestError),
        (b'{"format":1,"x":1e999}', ManifestError),
        (b'{"format":true}', ManifestError),
        (b'{"format":1,"x":"\xff"}', ManifestError),
        (b'{"format":1,"x":"\\ud800"}', ManifestError),
        (b'\xef\xbb\xbf{"format":1}', ManifestError),
        (b'{"format":2}', UnsupportedFormat),
        (b'{"format":1,"critical":["encryption"]}', UnsupportedFormat),
    ],
    ids=lambda v: repr(v)[:30],
)
def test_documents_that_attack_the_json_reader(document: bytes, error: type[ManifestError]) -> None:
    entries = raw_entries(lambda e: setattr(e["manifest.json"], "data", document))
    refused(forge(entries), error)
    for name in (HERE + b"release.json", b"models/exercise/policy.json"):
        refused(with_entries(RawEntry(name, document)), error)


def test_a_manifest_that_points_outside_its_folder() -> None:
    for name in ("../../../etc/passwd", "/etc/passwd", "..\\x", "C:\\x", "con"):
        refused(with_document(lambda d, n=name: bundles.put(d, "artifacts[0].file", n)), ManifestError, "artifacts")  # type: ignore[misc]


def test_a_refused_bundle_leaves_no_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(with_entries(RawEntry(b"../x", b"x")))
    with pytest.raises(BundleError):
        open_bundle(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bundle"]
