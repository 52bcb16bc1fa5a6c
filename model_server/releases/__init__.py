"""The registry: bundles are staged, signed by two people on their own machines, and published."""
