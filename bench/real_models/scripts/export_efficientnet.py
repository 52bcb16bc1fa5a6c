"""Run by an environment that has torch: CODE WEIGHTS FOLDER; writes FOLDER/model.pt2 and FOLDER/model.onnx."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def main(code: str, weights: str, folder: str) -> None:
    sys.path.insert(0, code)
    from efficientnet_lite_pytorch import EfficientNet

    torch.set_num_threads(1)
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    example = (torch.zeros(1, 3, 224, 224),)
    with torch.no_grad():
        program = torch.export.export(Named(model).eval(), example)
    torch.export.save(program, Path(folder) / "model.pt2")
    torch.onnx.export(
        program,
        f=str(Path(folder) / "model.onnx"),
        dynamo=True,
        external_data=False,
        input_names=["image"],
        output_names=["logits"],
    )
    print(sum(parameter.numel() for parameter in model.parameters()))


class Named(torch.nn.Module):
    """Gives the one input the name that the data has."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image)


main(*sys.argv[1:])
