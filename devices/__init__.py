"""Simulated fleets: many real runtimes on one machine. `profiles` knows real devices; fault injection comes later."""
