"""Cuts: a device that is stopped at every point at which it changes its disk, and started again.

`python -m devices faults` runs an update the whole way (a factory model, download, stage, canary, trial, commit; then a
release that crash-loops and is rolled back) and, for every write, append, fsync, rename, unlink, mkdir and rmdir of it,
stops the device there: once by SIGKILL, and in several ways as a power cut, which takes what was not synced. Started
again, the device must answer with a release whose bytes are the signed ones, and reach the end without a human.
"""
