import pytest
from securesystemslib.signer import Signature, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from model_server.errors import KeyRejected
from model_server.signing.keys import online_signer, personal_signer
from model_server.signing.roles import (
    check_keys,
    delegated_models,
    person_of,
    releases_delegation,
    rollouts_delegation,
    signed_by,
)
from tests.support.keys import SPELLINGS, new_private, respelt, same_key


def alice_and_bob() -> tuple[SSlibKey, SSlibKey]:
    return (
        personal_signer(new_private(), "alice").public_key,
        personal_signer(new_private(), "bob").public_key,
    )


def test_keys_of_different_people_are_accepted() -> None:
    check_keys("releases-m", alice_and_bob())


def test_one_public_key_under_two_ids_is_refused() -> None:
    alice, _ = alice_and_bob()
    with pytest.raises(KeyRejected, match="same public key"):
        check_keys("releases-m", [alice, same_key(alice, "0" * 64, "bob")])


def test_one_public_key_in_capitals_is_refused() -> None:
    alice, _ = alice_and_bob()
    shouted = same_key(alice, "0" * 64, "bob")
    shouted.keyval["public"] = shouted.keyval["public"].upper()
    with pytest.raises(KeyRejected, match="same public key"):
        check_keys("releases-m", [alice, shouted])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_key_in_two_spellings_is_neither_two_keys_nor_two_people(spelling: str) -> None:
    signer = SPELLINGS[spelling]()
    alice = same_key(signer.public_key, "a" * 64, "alice")
    again = same_key(alice, "b" * 64, "bob")
    again.keyval["public"] = respelt(alice.keyval["public"], spelling)
    with pytest.raises(KeyRejected, match="same public key"):
        check_keys("releases-m", [alice, again])
    role = DelegatedRole("releases-m", [alice.keyid, again.keyid], 2, False, paths=["models/m/*"])
    delegating = Targets(delegations=Delegations({alice.keyid: alice, again.keyid: again}, {"releases-m": role}))
    metadata = Metadata(Targets())
    signature = signer.sign(metadata.signed_bytes).signature
    signatures = {key.keyid: Signature(key.keyid, signature) for key in (alice, again)}
    assert delegating.get_verification_result("releases-m", metadata.signed_bytes, signatures)  # TUF counts two
    assert signed_by(delegating, "releases-m", metadata.signed_bytes, signatures) == {"alice": alice.keyid}


def test_two_keys_of_one_person_are_refused() -> None:
    keys = [personal_signer(new_private(), "alice").public_key for _ in range(2)]
    with pytest.raises(KeyRejected, match="alice already"):
        check_keys("releases-m", keys)


def test_a_key_without_a_person_is_refused() -> None:
    alice, _ = alice_and_bob()
    with pytest.raises(KeyRejected, match="belongs to nobody"):
        check_keys("releases-m", [alice, online_signer(new_private(), "rollouts").public_key])


def test_people_are_counted_and_not_key_ids() -> None:
    signer = personal_signer(new_private(), "alice")
    twin = same_key(signer.public_key, "f" * 64, "bob")
    role = DelegatedRole("releases-m", [signer.public_key.keyid, twin.keyid], 2, False, paths=["models/m/*"])
    delegating = Targets(
        delegations=Delegations({signer.public_key.keyid: signer.public_key, twin.keyid: twin}, {"releases-m": role})
    )
    metadata = Metadata(Targets())
    signature = metadata.sign(signer)
    signatures = {signature.keyid: signature, twin.keyid: type(signature)(twin.keyid, signature.signature)}
    assert delegating.get_verification_result("releases-m", metadata.signed_bytes, signatures).verified  # plain TUF
    assert len(signed_by(delegating, "releases-m", metadata.signed_bytes, signatures)) == 1


def test_two_keys_of_one_person_count_once() -> None:
    signers = [personal_signer(new_private(), "alice") for _ in range(2)]
    keys = {signer.public_key.keyid: signer.public_key for signer in signers}
    delegating = Targets(delegations=Delegations(dict(keys), {"releases-m": releases_delegation("m", keys)}))
    metadata = Metadata(Targets())
    for signer in signers:
        metadata.sign(signer, append=True)
    assert list(signed_by(delegating, "releases-m", metadata.signed_bytes, metadata.signatures)) == ["alice"]


def test_a_releases_role_covers_its_model_only_and_a_rollouts_role_ends_the_search() -> None:
    releases, rollouts = releases_delegation("m", ["a", "b"]), rollouts_delegation("m", "c")
    assert releases.is_delegated_path("models/m/3/manifest.json")
    assert releases.is_delegated_path("models/m/policy.json")
    assert not releases.is_delegated_path("models/m2/3/manifest.json")
    assert not releases.is_delegated_path("models/m/3/deep/file")
    assert not releases.is_delegated_path("rollouts/stable/m.json")
    assert rollouts.is_delegated_path("rollouts/stable/m.json")
    assert not rollouts.is_delegated_path("models/m/3/manifest.json")
    assert (releases.threshold, releases.terminating) == (2, False)
    assert (rollouts.threshold, rollouts.terminating) == (1, True)


def test_a_model_counts_as_delegated_with_both_of_its_roles() -> None:
    roles = {role.name: role for role in (releases_delegation("a", ["x"]), rollouts_delegation("a", "y"))}
    roles["releases-b"] = releases_delegation("b", ["x"])
    assert delegated_models(Targets(delegations=Delegations({}, roles))) == ("a",)
    assert delegated_models(Targets()) == ()


def test_the_owner_of_a_key_is_the_person_named_in_it() -> None:
    assert person_of(alice_and_bob()[0]) == "alice"
    assert person_of(online_signer(new_private(), "snapshot").public_key) is None
