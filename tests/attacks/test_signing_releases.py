"""One manager alone, a thief of the online keys, a thief of a targets key, and a lying server: none publishes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, Signature
from sqlalchemy import update
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from model_server.clock import SystemClock
from model_server.commands.local import init
from model_server.db.base import writing
from model_server.errors import (
    KeyRejected,
    ReleaseConflict,
    ReviewFailed,
    ServerRefused,
    SignatureRejected,
    SigningError,
    ThresholdNotMet,
)
from model_server.installation import open_publisher
from model_server.releases.carrying import fetch_proposal, submit
from model_server.releases.proposal_file import Proposal, read_proposal
from model_server.releases.signing import Approval, sign_release
from model_server.releases.signing_request import Review
from model_server.settings import Settings
from model_server.signing.carried import MAX_BYTES
from model_server.signing.keys import open_signer, read_passphrase
from model_server.signing.publisher import online_key_file
from model_server.signing.repository import parse_metadata, to_bytes
from model_server.signing.roles import check_keys, releases_role
from model_server.signing.tables import ProposalRow, SignatureRow
from tests.support.keys import same_key
from tests.support.managers import api, download, manager, publish, sign, stage
from tests.support.server import (
    PASSPHRASE,
    Running,
    SteppedClock,
    key_file,
    make_bundle,
    make_folder,
    repository_dir,
    running,
)

MANIFEST = "models/exercise/1/manifest.json"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with running(settings) as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "1.bundle", 1)


def releases_signer(server: Running, settings: Settings, person: str) -> CryptoSigner:
    targets = server.services.repository.top_level_targets().signed
    assert targets.delegations is not None
    return open_signer(key_file(settings, "releases", person), PASSPHRASE, targets.delegations.keys.values())


def proposal(server: Running) -> Metadata[Targets]:
    return parse_metadata(server.admin.get("/v1/releases/exercise/1/metadata").content, Targets, "proposal")


def post_signature(server: Running, keyid: str, signature: str) -> int:
    body = {"keyid": keyid, "signature": signature}
    return server.admin.post("/v1/releases/exercise/1/signatures", json=body).status_code


def assert_not_published(server: Running, settings: Settings, tmp_path: Path) -> None:
    answer = server.admin.post("/v1/releases/exercise/1/publish")
    assert answer.status_code == 409, answer.text
    assert "2 people must sign" in answer.json()["detail"]
    assert download(server, settings, tmp_path / "client", MANIFEST) is None


# One manager alone


def test_one_manager_alone_cannot_publish(server: Running, settings: Settings, bundle: Path, tmp_path: Path) -> None:
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    assert_not_published(server, settings, tmp_path)


def test_one_manager_who_signs_twice_is_still_one(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    for _ in range(3):
        sign(server, settings, "alice", bundle)
    assert len(server.admin.get("/v1/releases/exercise/1").json()["signatures"]) == 1
    assert_not_published(server, settings, tmp_path)


def test_one_managers_signature_under_another_managers_id_does_not_count(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    forged = proposal(server).sign(releases_signer(server, settings, "alice"))
    bob = releases_signer(server, settings, "bob").public_key.keyid
    assert post_signature(server, bob, forged.signature) == 422
    assert_not_published(server, settings, tmp_path)


def test_a_signature_put_into_the_database_behind_the_servers_back_does_not_count(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    forged = proposal(server).sign(releases_signer(server, settings, "alice"))
    with writing(server.services.engine) as session:
        session.add(
            SignatureRow(
                proposal_id=1,
                keyid=releases_signer(server, settings, "bob").public_key.keyid,
                person="bob",
                signature=forged.signature,
                signed_at=datetime.now(UTC),
            )
        )
    assert_not_published(server, settings, tmp_path)


def test_a_signature_over_another_proposal_is_refused(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    other = proposal(server)
    other.signed.version += 1
    signature = other.sign(releases_signer(server, settings, "bob"))
    assert post_signature(server, signature.keyid, signature.signature) == 422
    for nonsense in ("00", "ab" * 64):
        assert post_signature(server, signature.keyid, nonsense) == 422
    sign(server, settings, "alice", bundle)
    assert_not_published(server, settings, tmp_path)


def test_signatures_do_not_outlive_the_proposal_they_were_made_for(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    server.admin.delete("/v1/releases/exercise/1")
    evil = make_bundle(tmp_path / "evil.bundle", 1, data=b"evil")
    stage(server, evil)
    sign(server, settings, "bob", evil)
    assert_not_published(server, settings, tmp_path)


# The online keys


def online_signer(settings: Settings, use: str) -> CryptoSigner:
    passphrase = read_passphrase(settings.online_passphrase)
    publisher = open_publisher(settings, SteppedClock())
    keys = {
        **publisher.repository.root().signed.keys,
        **(publisher.repository.top_level_targets().signed.delegations.keys),  # type: ignore[union-attr]
    }
    return open_signer(online_key_file(settings.keys_dir, use), passphrase, keys.values())


@pytest.mark.parametrize("use", ["rollouts", "snapshot", "timestamp"])
def test_an_online_key_cannot_sign_a_release(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path, use: str
) -> None:
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    signer = online_signer(settings, use)
    signature = proposal(server).sign(signer)
    assert post_signature(server, signature.keyid, signature.signature) == 422
    assert_not_published(server, settings, tmp_path)


def test_a_thief_of_all_online_keys_publishes_no_release(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    """They can write metadata and sign snapshot and timestamp, so they put forward a releases role of their own."""
    stage(server, bundle)
    publisher = open_publisher(settings, SteppedClock())
    forged = proposal(server)
    for use in ("rollouts", "snapshot", "timestamp"):
        signer = online_signer(settings, use)
        forged.sign(signer, append=True)
    publisher.publish({releases_role("exercise"): forged})
    with pytest.raises(RepositoryError):
        download(server, settings, tmp_path / "client", MANIFEST)


def test_a_thief_of_the_rollouts_key_cannot_list_a_model_there(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    publisher = open_publisher(settings, SteppedClock())
    role = publisher.repository.role("rollouts-exercise")
    role.signed.targets[MANIFEST] = TargetFile(1, {"sha256": "0" * 64}, MANIFEST)
    role.signed.version += 1
    role.sign(online_signer(settings, "rollouts"))
    publisher.publish({"rollouts-exercise": role})
    assert download(server, settings, tmp_path / "client", MANIFEST) is None


# The targets keys


def test_a_targets_key_holder_who_lists_a_model_directly_is_found_by_every_signer(
    server: Running, settings: Settings, bundle: Path
) -> None:
    """Plain TUF would serve it (two targets keys are two targets keys); our tools and devices refuse such a list."""
    stage(server, bundle)
    publisher = open_publisher(settings, SteppedClock())
    targets = publisher.repository.top_level_targets()
    targets.signed.targets[MANIFEST] = TargetFile(1, {"sha256": "0" * 64}, MANIFEST)
    targets.signed.version += 1
    root = publisher.repository.root().signed
    targets.signatures.clear()
    for person in ("alice", "bob"):
        targets.sign(open_signer(key_file(settings, "targets", person), PASSPHRASE, root.keys.values()), append=True)
    publisher.publish({Targets.type: targets})
    with pytest.raises(ReviewFailed, match="must list none"):
        sign(server, settings, "alice", bundle)


def test_one_targets_key_holder_alone_changes_nothing(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    publish(server, settings, bundle)
    publisher = open_publisher(settings, SteppedClock())
    targets = publisher.repository.top_level_targets()
    targets.signed.version += 1
    targets.sign(
        open_signer(
            key_file(settings, "targets", "alice"), PASSPHRASE, publisher.repository.root().signed.keys.values()
        )
    )
    publisher.publish({Targets.type: targets})
    with pytest.raises(RepositoryError):
        download(server, settings, tmp_path / "client", MANIFEST)


def test_a_delegation_that_gives_one_public_key_two_ids_is_refused(server: Running, settings: Settings) -> None:
    alice = releases_signer(server, settings, "alice").public_key
    with pytest.raises(KeyRejected, match="same public key"):
        check_keys("releases-exercise", [alice, same_key(alice, "0" * 64, "bob")])


def delegation_with_twin(settings: Settings, *, threshold: int = 2) -> None:
    """Two targets-key holders who want alice alone to be enough give her key a second id and bob's name."""
    publisher = open_publisher(settings, SteppedClock())
    targets = publisher.repository.top_level_targets()
    delegations = targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    role = delegations.roles["releases-exercise"]
    alice = delegations.keys[role.keyids[0]]
    twin = same_key(alice, "f" * 64, "mallory")  # type: ignore[arg-type]
    delegations.keys[twin.keyid] = twin
    role.keyids = [alice.keyid, twin.keyid]
    role.threshold = threshold
    targets.signed.version += 1
    targets.signatures.clear()
    root = publisher.repository.root().signed
    for person in ("alice", "bob"):
        targets.sign(open_signer(key_file(settings, "targets", person), PASSPHRASE, root.keys.values()), append=True)
    releases = publisher.repository.role("releases-exercise")
    releases.signed.version += 1
    signature = releases.sign(
        open_signer(key_file(settings, "releases", "alice"), PASSPHRASE, [delegations.keys[alice.keyid]])
    )
    releases.signatures[twin.keyid] = Signature(twin.keyid, signature.signature)
    publisher.publish({Targets.type: targets, "releases-exercise": releases})


def test_the_same_key_twice_is_one_person_to_the_server_even_if_the_delegation_says_two(
    server: Running, settings: Settings, bundle: Path
) -> None:
    delegation_with_twin(settings)
    stage(server, bundle)
    metadata = proposal(server)
    signature = metadata.sign(releases_signer(server, settings, "alice"))
    assert post_signature(server, signature.keyid, signature.signature) == 200
    assert post_signature(server, "f" * 64, signature.signature) == 200  # plain TUF counts two now
    answer = server.admin.post("/v1/releases/exercise/1/publish")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:edgeship:problem:ThresholdNotMet")


@pytest.mark.parametrize(("threshold", "says"), [(1, "one signature only|same public key"), (2, "same public key")])
def test_a_signer_refuses_a_role_in_which_one_person_could_be_enough(
    server: Running, settings: Settings, bundle: Path, threshold: int, says: str
) -> None:
    delegation_with_twin(settings, threshold=threshold)
    stage(server, bundle)
    with pytest.raises((KeyRejected, ReviewFailed), match=says):
        sign(server, settings, "alice", bundle)


# A server that lies


def replace_proposal(server: Running, change: dict[str, TargetFile]) -> None:
    with writing(server.services.engine) as session:
        metadata = proposal(server)
        metadata.signed.targets.update(change)
        session.execute(update(ProposalRow).values(pending=to_bytes(metadata)))


def test_an_artifact_swapped_after_staging_is_not_signed(server: Running, settings: Settings, bundle: Path) -> None:
    stage(server, bundle)
    path = "models/exercise/1/model-fp32.onnx"
    replace_proposal(server, {path: TargetFile.from_data(path, b"an evil model", ["sha256"])})
    with pytest.raises(ReviewFailed, match=r"model-fp32\.onnx is not the file that you hold"):
        sign(server, settings, "alice", bundle)


def test_an_artifact_swapped_on_disk_after_signing_is_not_published(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    for person in ("alice", "bob"):
        sign(server, settings, person, bundle)
    files = {ref["file"]: ref["sha256"] for ref in server.admin.get("/v1/releases/exercise/1").json()["files"]}
    digest = files["model-fp32.onnx"]
    (settings.directory / "blobs" / "sha256" / digest[:2] / digest).write_bytes(b"an evil model")
    answer = server.admin.post("/v1/releases/exercise/1/publish")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:edgeship:problem:RepositoryDamaged")
    assert download(server, settings, tmp_path / "client", MANIFEST) is None


def test_an_artifact_swapped_after_publishing_is_not_accepted(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    publish(server, settings, bundle)
    folder = repository_dir(server.services.settings) / "targets" / "models" / "exercise" / "1"
    [path] = folder.glob("*.model-fp32.onnx")
    path.write_bytes(b"a mode1")
    with pytest.raises(RepositoryError):
        download(server, settings, tmp_path / "client", "models/exercise/1/model-fp32.onnx")


def test_a_second_release_smuggled_into_the_proposal_is_not_signed(
    server: Running, settings: Settings, bundle: Path
) -> None:
    stage(server, bundle)
    path = "models/exercise/2/manifest.json"
    replace_proposal(server, {path: TargetFile.from_data(path, b"{}", ["sha256"])})
    with pytest.raises(ReviewFailed, match="not in your bundle"):
        sign(server, settings, "alice", bundle)


def test_a_release_that_the_server_claims_was_published_before_is_not_believed(
    server: Running, settings: Settings, bundle: Path
) -> None:
    """The difference is taken from metadata that two people signed, so nothing can hide in what was there before."""
    stage(server, bundle)
    path = "models/exercise/3/manifest.json"
    publisher = open_publisher(settings, SteppedClock())
    role = publisher.repository.role("releases-exercise")
    role.signed.targets[path] = TargetFile.from_data(path, b"{}", ["sha256"])
    role.signed.version += 1
    publisher.publish({"releases-exercise": role})
    with pytest.raises(ReviewFailed, match="does not verify"):
        sign(server, settings, "alice", bundle)


def test_an_older_state_is_not_shown_twice_to_a_signer(server: Running, settings: Settings, tmp_path: Path) -> None:
    """A server that hides release 1 from alice, so that she would sign release 1 once more with other content."""
    metadata = repository_dir(settings) / "metadata"
    before = {path: path.read_bytes() for path in metadata.iterdir()}
    first = make_bundle(tmp_path / "1.bundle", 1)
    publish(server, settings, first)
    second = make_bundle(tmp_path / "2.bundle", 2)
    stage(server, second)
    sign(server, settings, "alice", second, 2)
    metadata.joinpath("timestamp.json").write_bytes(before[metadata / "timestamp.json"])
    with pytest.raises(ReviewFailed, match="does not verify"):
        sign(server, settings, "alice", second, 2)


def test_expired_metadata_is_not_published(settings: Settings, bundle: Path) -> None:
    clock = SteppedClock()
    with running(settings, clock) as server:
        stage(server, bundle)
        for person in ("alice", "bob"):
            sign(server, settings, person, bundle)
        clock.advance(days=91)
        answer = server.admin.post("/v1/releases/exercise/1/publish")
        assert answer.status_code == 409
        assert "expired" in answer.json()["detail"]


def test_the_fleets_token_changes_nothing(server: Running, settings: Settings, bundle: Path) -> None:
    assert server.device.post("/v1/releases", content=bundle.read_bytes()).status_code == 403
    stage(server, bundle)
    for method, path in (
        ("GET", "/v1/releases/exercise"),
        ("GET", "/v1/releases/exercise/1/metadata"),
        ("POST", "/v1/releases/exercise/1/signatures"),
        ("POST", "/v1/releases/exercise/1/publish"),
        ("DELETE", "/v1/releases/exercise/1"),
        ("POST", "/v1/rollouts/stable/exercise"),
        ("POST", "/v1/rollouts/stable/exercise/halt"),
        ("GET", "/v1/rollouts/stable/exercise"),
        ("GET", "/v1/devices"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/0"),
        ("DELETE", "/v1/jobs/0"),
        ("GET", "/v1/status"),
    ):
        assert server.device.request(method, path).status_code == 403, path


def test_no_private_key_is_in_the_database_or_in_what_is_served(
    server: Running, settings: Settings, bundle: Path
) -> None:
    publish(server, settings, bundle)
    secrets = [
        open_signer(path, PASSPHRASE, [key])._private_key.private_bytes_raw()  # type: ignore[union-attr]
        for path, key in [
            (key_file(settings, "releases", person), releases_signer(server, settings, person).public_key)
            for person in ("alice", "bob")
        ]
    ]
    everywhere = [settings.directory / "edgeship.db", *repository_dir(settings).rglob("*.json")]
    for path in everywhere:
        data = path.read_bytes()
        for secret in secrets:
            assert secret not in data
            assert secret.hex().encode() not in data


def test_a_key_id_that_is_no_key_is_refused_by_name(server: Running, settings: Settings, bundle: Path) -> None:
    stage(server, bundle)
    answer = server.admin.post("/v1/releases/exercise/1/signatures", json={"keyid": "0" * 64, "signature": "00" * 64})
    assert answer.json()["type"] == "urn:edgeship:problem:SignatureRejected"
    body = json.dumps({"keyid": "0" * 64, "signature": "zz"})
    assert server.admin.post("/v1/releases/exercise/1/signatures", content=body).status_code == 400


def test_the_services_raise_what_http_shows(server: Running, settings: Settings, bundle: Path) -> None:
    stage(server, bundle)
    releases = server.services.releases
    with pytest.raises(ThresholdNotMet):
        releases.publish("exercise", 1, "test")
    with pytest.raises(SignatureRejected):
        releases.add_signature("exercise", 1, "0" * 64, Signature("0" * 64, "00").signature, "test")


# A proposal that is carried by hand


def carried(server: Running, settings: Settings, release: int | None = 1) -> Proposal:
    with api(server, settings) as client:
        return fetch_proposal(client, "exercise", release)


def sign_carried(settings: Settings, proposal: Proposal, bundle: Path, person: str = "alice") -> Approval[Review]:
    return sign_release(proposal, manager(settings, person), bundle=bundle, confirm=lambda review: True, fresh=False)


def assert_unsigned(proposal: Proposal) -> None:
    assert proposal.metadata.signatures == {}


def test_a_carried_proposal_that_was_exchanged_is_not_signed(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    """Its files, its release.json, and the metadata that it claims was published."""
    stage(server, bundle)
    artifact, document = "models/exercise/1/model-fp32.onnx", "models/exercise/1/release.json"
    swapped = carried(server, settings)
    swapped.metadata.signed.targets[artifact] = TargetFile.from_data(artifact, b"an evil model", ["sha256"])
    with pytest.raises(ReviewFailed, match=r"model-fp32\.onnx is not the file that you hold"):
        sign_carried(settings, swapped, bundle)
    looser = dataclasses.replace(carried(server, settings), document=b'{"ceiling": []}')
    with pytest.raises(ReviewFailed, match=document):
        sign_carried(settings, looser, bundle)
    honest = carried(server, settings)
    name = "1.releases-exercise.json"
    role = parse_metadata(honest.published[name], Targets, name)
    role.signed.targets["models/exercise/3/manifest.json"] = TargetFile.from_data("x", b"{}", ["sha256"])
    forged = dataclasses.replace(honest, published={**honest.published, name: to_bytes(role)})
    with pytest.raises(ReviewFailed, match="does not verify from your root"):
        sign_carried(settings, forged, bundle, "bob")  # who has not seen the true one
    for proposal in (swapped, looser, forged):
        assert_unsigned(proposal)


def test_a_carried_proposal_from_before_what_the_signer_has_seen_is_not_signed(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    """Whoever holds back a file with an older state would get release 1 signed once more, with other content."""
    stage(server, bundle)
    old = carried(server, settings)
    for person in ("alice", "bob"):
        sign(server, settings, person, bundle)
    assert server.admin.post("/v1/releases/exercise/1/publish").status_code == 200
    second = make_bundle(tmp_path / "2.bundle", 2)
    stage(server, second)
    new = carried(server, settings, 2)
    assert sign_carried(settings, new, second).signed_by == ("alice",)
    with pytest.raises(ReviewFailed, match="does not verify from your root"):
        sign_carried(settings, old, bundle)
    assert_unsigned(old)
    cut = {name: data for name, data in new.published.items() if "snapshot" not in name}
    with pytest.raises(ReviewFailed, match="does not verify from your root"):
        sign_carried(settings, dataclasses.replace(carried(server, settings, 2), published=cut), second, "bob")


def test_a_carried_proposal_verifies_from_the_signers_root_only(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    proposal = carried(server, settings)
    init(tmp_path / "elsewhere", ["exercise"], ["alice", "bob", "carol"], PASSPHRASE, SystemClock())
    other = dataclasses.replace(
        manager(settings, "alice"), root=(tmp_path / "elsewhere" / "root.json").read_bytes(), trust=tmp_path / "trust"
    )
    with pytest.raises(ReviewFailed, match="does not verify from your root"):
        sign_release(proposal, other, bundle=bundle, confirm=lambda review: True, fresh=False)
    assert_unsigned(proposal)


def test_a_carried_proposal_for_another_model_is_not_signed_as_this_one(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    stage(server, make_bundle(tmp_path / "g.bundle", 1, model="gesture"))
    with api(server, settings) as client:
        gesture = fetch_proposal(client, "gesture", 1)
    with pytest.raises(ReviewFailed, match="holds exercise 1, not gesture 1"):
        sign_carried(settings, gesture, bundle)
    both = {**gesture.published, **carried(server, settings).published}
    renamed = dataclasses.replace(gesture, model="exercise", published=both)
    with pytest.raises(ReviewFailed, match="the proposal changes more than the list of files"):
        sign_carried(settings, renamed, bundle)
    assert_unsigned(gesture)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is no proposal"),
        (b"PK\x03\x04", "is no proposal"),
        (b"[" * 100_000, "is no proposal"),
        (b'{"format": 2}', "is no proposal in format 1"),
        (b'{"format": 1, "metadata": {}, "published": {}}', "documents must hold texts"),
        (b'{"format": 1, "documents": {}, "model": 1, "release": 1}', "model is no text"),
        (b'{"format": 1, "documents": {}, "model": "m", "release": true}', "is not a release number"),
        (b'{"format": 1, "documents": {"a": "\\ud800"}}', "is no text"),
        (b'{"format": 1, "documents": {}, "model": "m", "release": 1, "metadata": "{}"}', "is not TUF metadata"),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
)
def test_a_file_that_is_no_proposal_is_refused_by_name(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.proposal"
    path.write_bytes(data)
    with pytest.raises(SigningError, match=says) as refused:
        read_proposal(path)
    assert str(path) in str(refused.value)


def test_signatures_for_what_the_server_proposes_no_more_are_not_sent(
    server: Running, settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    stage(server, bundle)
    old = carried(server, settings)
    sign_carried(settings, old, bundle)
    server.admin.delete("/v1/releases/exercise/1")
    stage(server, make_bundle(tmp_path / "other.bundle", 1, data=b"another model"))
    with api(server, settings) as client, pytest.raises(ReleaseConflict, match="has changed since"):
        submit(client, old)
    assert server.admin.get("/v1/releases/exercise/1").json()["signatures"] == []


def test_a_forged_signature_in_a_carried_file_counts_for_nobody(
    server: Running, settings: Settings, bundle: Path
) -> None:
    stage(server, bundle)
    proposal = carried(server, settings)
    assert sign_carried(settings, proposal, bundle).signed_by == ("alice",)
    [(keyid, signature)] = proposal.metadata.signatures.items()
    bob = releases_signer(server, settings, "bob").public_key.keyid
    proposal.metadata.signatures = {bob: Signature(bob, signature.signature), keyid: signature}
    assert sign_carried(settings, proposal, bundle).signed_by == ("alice",)
    with api(server, settings) as client, pytest.raises(ServerRefused, match="by bob does not verify"):
        submit(client, proposal)
