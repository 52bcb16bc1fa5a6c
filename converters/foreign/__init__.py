"""From ONNX and PyTorch to the other formats, by tools that are not at home here."""
