"""Getting releases onto a device: signed metadata, downloads, the rollout plan, and the check that ties them up."""
