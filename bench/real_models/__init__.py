"""Real models and real data for the converters' bench and matrix, out of packages: `python -m bench.real_models`."""
