from __future__ import annotations

from pathlib import Path

import pytest

from converters.errors import DataUnreadable
from converters.lineage import dvc_of

DVC = """
outs:
- md5: 6f1d0c3f3a7c
  size: 120
  hash: md5
  path: train.npz
"""


def test_the_dvc_file_beside_the_data_is_part_of_the_lineage(tmp_path: Path) -> None:
    (tmp_path / "train.npz.dvc").write_text(DVC)
    assert dvc_of([tmp_path / "train.npz", tmp_path / "model.keras"]) == "md5:6f1d0c3f3a7c train.npz"
    assert dvc_of([tmp_path / "other.npz"]) is None


@pytest.mark.parametrize(
    "text", ["outs: 3", "- 1", "outs:\n- path: train.npz", "{", "!!python/object/apply:os.abort []"]
)
def test_a_dvc_file_that_says_nothing_of_the_data_is_an_error_and_not_silence(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.npz.dvc").write_text(text)
    with pytest.raises(DataUnreadable, match=r"train\.npz\.dvc is no readable \.dvc file"):
        dvc_of([tmp_path / "train.npz"])
