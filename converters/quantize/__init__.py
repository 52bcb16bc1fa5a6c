"""Static 8-bit quantization: recipes are data, ranges come from the user's own calibration rows."""
