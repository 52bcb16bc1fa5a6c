"""Simulated fleets: many real runtimes on one machine. Profiles of real devices and fault injection come later."""
