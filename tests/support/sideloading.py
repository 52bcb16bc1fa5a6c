"""Bundles as a server exports them, out of the repository of a `World`, and devices that install them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_runtime.bundle import write_bundle
from edge_runtime.update.sideload import Sideload, Sideloaded
from tests.support.world import TestDevice, World


def export(
    world: World, release: int, *, changes: Mapping[str, bytes | None] | None = None, model: str = "tiny"
) -> Path:
    """The bundle of a published release as the repository is now. ``changes`` replaces entries, or leaves them out."""
    repository = world.repository
    listed = repository.snapshot.meta
    names = [f"{version}.root.json" for version in range(1, repository.root.version + 1)]
    names += ["timestamp.json", f"{repository.snapshot.version}.snapshot.json"]
    names += [f"{listed[f'{role}.json'].version}.{role}.json" for role in ("targets", f"releases-{model}")]
    files = {f"tuf/{name}": (repository.metadata / name).read_bytes() for name in names}
    here = (f"models/{model}/{release}/", f"models/{model}/policy.json")
    for path in repository.roles[f"releases-{model}"].targets:
        if path.startswith(here):
            files[path] = repository.file(path).read_bytes()
    for path, data in (changes or {}).items():
        if data is None:
            del files[path]
        else:
            files[path] = data
    out = world.folder.parent / f"{model}-{release}-{len(list(world.folder.parent.glob('*.bundle')))}.bundle"
    write_bundle(out, files)
    return out


def install(device: TestDevice, bundle: Path) -> Sideloaded:
    """What `EdgeRuntime.install_bundle` does, with the device's clock and canary."""
    sideload = Sideload(
        store=device.store,
        device=device.device,
        model="tiny",
        root=device.world.root,
        engines=("onnx", "tflite"),
        clock=device.clock,
        try_out=device.canary,
    )
    result = sideload.install(bundle)
    device.updater.recheck()
    return result
