"""Releases and signatures as the API shows them."""

from __future__ import annotations

from model_server.releases.service import ReleaseInfo
from model_server.signing.proposals import SignatureInfo

__all__ = ["release_json", "signature_json"]


def signature_json(known: SignatureInfo) -> dict[str, str]:
    return {"person": known.person, "keyid": known.keyid, "signed_at": known.signed_at.isoformat()}


def release_json(info: ReleaseInfo) -> dict[str, object]:
    return {
        "model": info.model,
        "release": info.release,
        "version": info.version,
        "state": info.state.value,
        "bundle_sha256": info.bundle_sha256,
        "metadata_version": info.metadata_version,
        "files": [{"file": ref.file, "bytes": ref.bytes, "sha256": ref.sha256} for ref in info.files],
        "signatures": [signature_json(known) for known in info.signatures],
        "threshold": info.threshold,
        "missing": max(0, info.threshold - len({known.person for known in info.signatures})),
        "readiness": None if info.readiness is None else info.readiness.to_dict(),
        "staged_by": info.staged_by,
        "staged_at": info.staged_at.isoformat(),
        "published_at": info.published_at.isoformat() if info.published_at else None,
    }
