"""Telemetry: anonymous reports in, noised cohort sums and a drift verdict out."""
