"""Run by the environment ``torch``: writes small ExportedPrograms into the folder that it is given."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.export import Dim, export, save


class Transformer(torch.nn.Module):
    """Attention, layer normalization and exact GELU over 8 patches of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, 32)
        self.layer = torch.nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, patches):
        return self.head(self.layer(self.embed(patches)).mean(1))


class TwoHeads(torch.nn.Module):
    """A GRU and a convolution over a signal, and an embedding of an integer, with two named results."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(4, 8, batch_first=True)
        self.conv = torch.nn.Conv1d(4, 6, 3)
        self.kinds = torch.nn.Embedding(10, 5)
        self.head = torch.nn.Linear(19, 3)

    def forward(self, signal, kind):
        steps, _ = self.gru(signal)
        features = torch.relu(self.conv(signal.transpose(1, 2))).amax(-1)
        logits = self.head(torch.cat([steps[:, -1], features, self.kinds(kind)], -1))
        return {"probabilities": torch.softmax(logits, -1), "features": features}


class Loose(torch.nn.Module):
    """A whole table in, a table and its mean out: no batch."""

    def forward(self, table):
        return table.sin() * 2, table.mean()


class Determinant(torch.nn.Module):
    """An operator that no other format has."""

    def forward(self, matrix):
        return torch.linalg.svdvals(matrix)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    batch = Dim("batch")
    transformer = Transformer().eval()
    signal, kind = torch.randn(2, 12, 4), torch.tensor([1, 2])
    programs = {
        "transformer": export(transformer, (torch.randn(2, 8, 8),), dynamic_shapes={"patches": {0: batch}}),
        "one": export(transformer, (torch.randn(1, 8, 8),)),
        "twoheads": export(
            TwoHeads().eval(), (signal, kind), dynamic_shapes={"signal": {0: batch}, "kind": {0: batch}}
        ),
        "loose": export(Loose(), (torch.randn(5, 7),)),
        "svd": export(Determinant(), (torch.randn(1, 4, 4),)),
    }
    for name, program in programs.items():
        save(program, folder / f"{name}.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
