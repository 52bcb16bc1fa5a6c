"""What a signer's machine refuses, whoever made the file: over keys in memory, without a server."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, TargetFile, Targets

from model_server.errors import ReviewFailed
from model_server.signing.changes.editing import Editor, Holding
from model_server.signing.changes.judging import judge
from model_server.signing.keys import online_signer, personal_signer
from model_server.signing.roles import ONLINE_FIELD, Expiry, releases_delegation, rollouts_delegation
from model_server.signing.state import Offline, State
from tests.support.keys import new_private, respelt, same_key

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PEOPLE = ("alice", "bob", "carol")


def signers(*people: str) -> list[CryptoSigner]:
    return [personal_signer(new_private(), person) for person in people]


ROOT, TARGETS, RELEASES = signers(*PEOPLE), signers(*PEOPLE), signers(*PEOPLE)
ONLINE = {use: online_signer(new_private(), use) for use in ("snapshot", "timestamp", "rollouts")}
DAVE = signers("dave")[0].public_key


def published() -> State:
    root = Root(version=3, expires=NOW + timedelta(days=100), consistent_snapshot=True)
    for role, threshold, holders in (
        ("root", 2, ROOT),
        ("targets", 2, TARGETS),
        ("snapshot", 1, [ONLINE["snapshot"]]),
        ("timestamp", 1, [ONLINE["timestamp"]]),
    ):
        root.roles[role] = Role([], threshold)
        for holder in holders:
            root.add_key(holder.public_key, role)
    targets = Targets(version=5, expires=NOW + timedelta(days=50), delegations=Delegations({}, {}))
    delegations = targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    for key in (*(each.public_key for each in RELEASES), ONLINE["rollouts"].public_key):
        delegations.keys[key.keyid] = key
    for model in ("m", "n"):
        for made in (
            releases_delegation(model, [each.public_key.keyid for each in RELEASES]),
            rollouts_delegation(model, ONLINE["rollouts"].public_key.keyid),
        ):
            delegations.roles[made.name] = made
    path = "models/m/1/manifest.json"
    releases = Targets(
        version=7,
        expires=NOW + timedelta(days=20),
        targets={path: TargetFile.from_data(path, b"{}", ["sha256"])},
    )
    state = State(root=Metadata(root), targets=Metadata(targets), releases={"m": Metadata(releases)})
    for metadata, holders in ((state.root, ROOT), (state.targets, TARGETS), (state.releases["m"], RELEASES)):
        for holder in holders[:2]:
            metadata.sign(holder, append=True)
    return state


BEFORE = published()


def change(edit: Callable[[Editor], object]) -> dict[str, Offline]:
    state = State(root=BEFORE.root, targets=BEFORE.targets, releases={**BEFORE.releases, "n": BEFORE.releases["m"]})
    editor = Editor(state, NOW, Expiry())
    edit(editor)
    return deepcopy(editor.changed())


def add_dave(editor: Editor) -> None:
    editor.add([Holding(kind="releases", key=DAVE)], ["m"])


def add_dave_to_root(editor: Editor) -> None:
    editor.add([Holding(kind="root", key=DAVE)])


def renew(editor: Editor) -> None:
    editor.renew("releases-m")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (add_dave, [f"releases-m: dave joins with key {DAVE.keyid[:12]}"]),
        (add_dave_to_root, [f"root: dave joins with key {DAVE.keyid[:12]}"]),
        (renew, ["releases-m is signed again, unchanged: its 1 files stay"]),
        (lambda editor: editor.renew("targets"), ["targets is signed again, unchanged"]),
        (lambda editor: editor.renew("root"), ["root is signed again, unchanged"]),
    ],
)
def test_a_change_is_said_in_words(edit: Callable[[Editor], object], says: list[str]) -> None:
    assert list(judge(BEFORE, change(edit), NOW).lines) == says


def test_a_new_model_is_said_with_its_people() -> None:
    made = change(
        lambda editor: editor.delegate("pose", [each.public_key for each in RELEASES], ONLINE["rollouts"].public_key)
    )
    assert judge(BEFORE, made, NOW).lines == ("pose is added: alice, bob, carol sign its releases, 2 at a time",)


def _root(made: dict[str, Offline]) -> Root:
    root = made["root"].signed
    assert isinstance(root, Root)
    return root


def _targets(made: dict[str, Offline], role: str = "targets") -> Targets:
    targets = made[role].signed
    assert isinstance(targets, Targets)
    return targets


def _role(made: dict[str, Offline], name: str) -> DelegatedRole:
    return _targets(made).get_delegated_role(name)


def lower_root_threshold(made: dict[str, Offline]) -> None:
    _root(made).roles["root"].threshold = 1


def lower_targets_threshold(made: dict[str, Offline]) -> None:
    _root(made).roles["targets"].threshold = 1


def nobodys_key(made: dict[str, Offline]) -> None:
    key = SSlibKey.from_crypto(new_private().public_key())
    _root(made).add_key(key, "targets")


def online_key_signs_root(made: dict[str, Offline]) -> None:
    key = ONLINE["timestamp"].public_key
    _root(made).add_key(
        SSlibKey(
            key.keyid, key.keytype, key.scheme, dict(key.keyval), {**key.unrecognized_fields, "x-edgeship-person": "x"}
        ),
        "root",
    )


def alice_twice(made: dict[str, Offline]) -> None:
    _root(made).add_key(same_key(ROOT[0].public_key, "f" * 64, "mallory"), "root")  # type: ignore[arg-type]


def alice_under_another_name(made: dict[str, Offline]) -> None:
    key = _root(made).keys[ROOT[0].public_key.keyid]
    _root(made).keys[key.keyid] = same_key(key, key.keyid, "mallory")  # type: ignore[arg-type]


def two_timestamp_keys(made: dict[str, Offline]) -> None:
    _root(made).add_key(online_signer(new_private(), "timestamp").public_key, "timestamp")


def persons_timestamp_key(made: dict[str, Offline]) -> None:
    root = _root(made)
    root.revoke_key(ONLINE["timestamp"].public_key.keyid, "timestamp")
    root.add_key(signers("mallory")[0].public_key, "timestamp")


def names_without_versions(made: dict[str, Offline]) -> None:
    _root(made).consistent_snapshot = False


def two_people_root(made: dict[str, Offline]) -> None:
    root = _root(made)
    for keyid in list(root.roles["root"].keyids)[2:]:
        root.revoke_key(keyid, "root")


def root_for_ten_years(made: dict[str, Offline]) -> None:
    _root(made).expires = NOW + timedelta(days=3650)


def root_version(made: dict[str, Offline]) -> None:
    _root(made).version += 1


def root_field(made: dict[str, Offline]) -> None:
    _root(made).unrecognized_fields["x-new"] = 1


def spare_key(made: dict[str, Offline]) -> None:
    _root(made).keys[DAVE.keyid] = DAVE
    _root(made).roles["root"].keyids = [k for k in _root(made).roles["root"].keyids if k != DAVE.keyid]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lower_root_threshold, "root would need 1 signatures"),
        (lower_targets_threshold, "targets would need 1 signatures"),
        (nobodys_key, "belongs to nobody"),
        (online_key_signs_root, "signed by a key of the server"),
        (alice_twice, "same public key"),
        (alice_under_another_name, "another owner"),
        (two_timestamp_keys, "one key of the server"),
        (persons_timestamp_key, "one key of the server"),
        (names_without_versions, "name files by version"),
        (two_people_root, "fewer than 3 people"),
        (root_for_ten_years, "not within 365 days"),
        (root_version, "after 3 comes one more"),
        (root_field, "fields that this version does not know"),
        (spare_key, "a key that no role uses"),
    ],
)
def test_a_root_that_is_weaker_is_not_signed(damage: Callable[[dict[str, Offline]], None], says: str) -> None:
    made = change(add_dave_to_root)
    damage(made)
    with pytest.raises(ReviewFailed, match=says):
        judge(BEFORE, made, NOW)


def list_a_file(made: dict[str, Offline]) -> None:
    path = "models/m/2/manifest.json"
    _targets(made).targets[path] = TargetFile.from_data(path, b"evil", ["sha256"])


def lower_releases_threshold(made: dict[str, Offline]) -> None:
    _role(made, "releases-m").threshold = 1


def wider_paths(made: dict[str, Offline]) -> None:
    _role(made, "releases-m").paths = ["models/*/*", "models/*/*/*"]


def rollouts_sign_releases(made: dict[str, Offline]) -> None:
    _role(made, "rollouts-m").paths = ["rollouts/*/m.json", "models/m/*/*"]


def not_terminating(made: dict[str, Offline]) -> None:
    _role(made, "rollouts-m").terminating = False


def another_role(made: dict[str, Offline]) -> None:
    roles = _targets(made).delegations.roles  # type: ignore[union-attr]
    assert roles is not None
    roles["backdoor"] = DelegatedRole("backdoor", [ONLINE["rollouts"].public_key.keyid], 1, False, ["models/m/*/*"])


def drop_a_model(made: dict[str, Offline]) -> None:
    roles = _targets(made).delegations.roles  # type: ignore[union-attr]
    assert roles is not None
    del roles["releases-n"]
    del roles["rollouts-n"]


def nobody_signs_m(made: dict[str, Offline]) -> None:
    for keyid in list(_role(made, "releases-m").keyids)[1:]:
        _targets(made).revoke_key(keyid, "releases-m")


def unknown_key(made: dict[str, Offline]) -> None:
    _role(made, "releases-m").keyids.append("0" * 64)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (list_a_file, "it must list none"),
        (lower_releases_threshold, "releases-m would need 1 signatures"),
        (wider_paths, "releases-m would have other paths"),
        (rollouts_sign_releases, "rollouts-m would have other paths"),
        (not_terminating, "rollouts-m would have other paths"),
        (another_role, "'backdoor', which is no role of a model"),
        (drop_a_model, "n would no longer be delegated"),
        (nobody_signs_m, "releases-m would have 1 people"),
        (unknown_key, "which is not in the metadata"),
    ],
)
def test_targets_that_are_weaker_are_not_signed(damage: Callable[[dict[str, Offline]], None], says: str) -> None:
    made = change(add_dave)
    damage(made)
    with pytest.raises(ReviewFailed, match=says):
        judge(BEFORE, made, NOW)


def add_a_release(made: dict[str, Offline]) -> None:
    path = "models/m/2/manifest.json"
    _targets(made, "releases-m").targets[path] = TargetFile.from_data(path, b"evil", ["sha256"])


def drop_releases(made: dict[str, Offline]) -> None:
    _targets(made, "releases-m").targets.clear()


def delegate_further(made: dict[str, Offline]) -> None:
    _targets(made, "releases-m").delegations = Delegations({}, {})


def for_ever(made: dict[str, Offline]) -> None:
    _targets(made, "releases-m").expires = NOW + timedelta(days=365)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (add_a_release, "list other files"),
        (drop_releases, "list other files"),
        (delegate_further, "list other files"),
        (for_ever, "not within 90 days"),
    ],
)
def test_a_change_of_keys_never_changes_releases(damage: Callable[[dict[str, Offline]], None], says: str) -> None:
    made = change(renew)
    damage(made)
    with pytest.raises(ReviewFailed, match=says):
        judge(BEFORE, made, NOW)


def twin_of_the_server(made: dict[str, Offline]) -> None:
    """A release manager who is the server."""
    key = same_key(ONLINE["timestamp"].public_key, "e" * 64, "mallory")  # type: ignore[arg-type]
    _targets(made).add_key(key, "releases-m")


def twin_of_a_root_key(made: dict[str, Offline]) -> None:
    key = same_key(ROOT[0].public_key, "e" * 64, "mallory")  # type: ignore[arg-type]
    _targets(made).add_key(key, "releases-m")


def the_same_key_under_another_owner(made: dict[str, Offline]) -> None:
    key = same_key(ROOT[0].public_key, ROOT[0].public_key.keyid, "mallory")  # type: ignore[arg-type]
    _targets(made).add_key(key, "releases-m")


def the_same_ecdsa_key_in_other_words(made: dict[str, Offline]) -> None:
    key = same_key(CryptoSigner.generate_ecdsa().public_key, "d" * 64, "erin")
    again = same_key(key, "e" * 64, "mallory")
    again.keyval["public"] = respelt(key.keyval["public"], "PEM of a compressed point")
    _targets(made).add_key(key, "releases-m")
    _targets(made).add_key(again, "releases-n")


@pytest.mark.parametrize(
    "damage",
    [
        twin_of_the_server,
        twin_of_a_root_key,
        the_same_key_under_another_owner,
        the_same_ecdsa_key_in_other_words,
    ],
)
def test_one_public_key_is_one_owner_in_all_roles_together(damage: Callable[[dict[str, Offline]], None]) -> None:
    made = change(add_dave)
    damage(made)
    with pytest.raises(ReviewFailed, match="the same public key"):
        judge(BEFORE, made, NOW)


@pytest.mark.parametrize(
    "weak",
    [
        CryptoSigner.generate_rsa(size=1024).public_key,
        CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256", size=2048).public_key,
        CryptoSigner.generate_ecdsa(scheme="ecdsa-sha2-nistp521").public_key,
    ],
)
def test_a_key_of_a_weak_or_unusual_kind_is_not_signed_for(weak: SSlibKey) -> None:
    made = change(add_dave)
    _targets(made).add_key(same_key(weak, weak.keyid, "mallory"), "releases-m")
    with pytest.raises(ReviewFailed, match="of no kind that may sign here"):
        judge(BEFORE, made, NOW)
    server = SSlibKey(weak.keyid, weak.keytype, weak.scheme, dict(weak.keyval), {ONLINE_FIELD: "timestamp"})
    made = change(lambda editor: editor.rotate_online("timestamp", server))
    with pytest.raises(ReviewFailed, match="of no kind that may sign here"):
        judge(BEFORE, made, NOW)


def test_roles_under_false_names_are_refused() -> None:
    made = change(renew)
    with pytest.raises(ReviewFailed, match="no role of a model"):
        judge(BEFORE, {"releases-other": made["releases-m"]}, NOW)
    with pytest.raises(ReviewFailed, match="another type"):
        judge(BEFORE, {"root": made["releases-m"]}, NOW)
    with pytest.raises(ReviewFailed, match="empty"):
        judge(BEFORE, {}, NOW)
