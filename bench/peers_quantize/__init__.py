"""What `bench.quantize` compares with: other tools' quantizers with their own defaults, each in its own process."""
