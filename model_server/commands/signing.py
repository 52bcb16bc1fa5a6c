"""`release fetch`, `sign` and `submit`, of a release or a policy: at a server, or with a file carried by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_runtime.bundle import check_model
from model_server.client import Client
from model_server.commands.parser import POLICY
from model_server.commands.policy import show_policy, show_policy_review
from model_server.commands.show import show_readiness, show_release, show_review
from model_server.commands.trust import Ask, manager_of
from model_server.errors import ReviewFailed, SettingsError
from model_server.releases.carrying import fetch_proposal, submit
from model_server.releases.policy_request import PolicyReview
from model_server.releases.proposal_file import Proposal, merge_proposals, read_proposal, write_proposal
from model_server.releases.signing import Approval, sign_policy, sign_release
from model_server.releases.signing_request import Review

__all__ = ["run_fetch", "run_sign", "run_sign_carried", "run_submit"]

Answer = dict[str, Any]
Confirm = Callable[[str], bool]


def run_fetch(args: argparse.Namespace, client: Client, console: Console) -> Answer:
    proposal = fetch_proposal(client, check_model(args.model), _number(args))
    write_proposal(args.out, proposal)
    console.print(
        f"{args.out} holds the proposal for {proposal.subject}. On each signer's machine, which needs no network: "
        f"edgeship-server release sign {proposal.model} {args.release} --proposal {args.out} … Then, here: "
        f"edgeship-server release submit {args.out}",
        soft_wrap=True,
    )
    return {"proposal": str(args.out), "model": proposal.model, "release": args.release}


def run_sign(args: argparse.Namespace, client: Client, console: Console, passphrase: Ask, confirm: Confirm) -> Answer:
    """Sign what the server proposes, and send it the signature."""
    _check_bundle(args)
    if args.out is not None:
        raise SettingsError("--out goes with --proposal; what a server proposes is signed there")
    proposal = fetch_proposal(client, check_model(args.model), _number(args))

    def readiness() -> None:
        if proposal.release is not None:
            show_readiness(console, client.get(f"/v1/releases/{proposal.model}/{proposal.release}"))

    approval = _sign(args, proposal, console, passphrase, confirm, readiness, fresh=True)
    answer = submit(client, proposal)
    console.print(f"signed by {approval.person}")
    _show(console, proposal, answer)
    return {**_json(approval), _kind(proposal): answer}


def run_sign_carried(args: argparse.Namespace, console: Console, passphrase: Ask, confirm: Confirm) -> Answer:
    """Sign what a file proposes, into it or into ``--out``, without a network."""
    _check_bundle(args)
    proposal = read_proposal(args.proposal)
    if (proposal.model, proposal.release) != (check_model(args.model), _number(args)):
        raise ReviewFailed(f"{args.proposal} proposes {proposal.subject}, not {args.model} {args.release}")
    approval = _sign(args, proposal, console, passphrase, confirm, lambda: None, fresh=False)
    out: Path = args.out or args.proposal
    write_proposal(out, proposal)
    console.print(
        f"{out} is signed by {', '.join(approval.signed_by)} ({approval.threshold} needed). Where there is a network: "
        f"edgeship-server release submit {out}",
        soft_wrap=True,
    )
    return {
        **_json(approval),
        "proposal": str(out),
        "signed_by": list(approval.signed_by),
        "threshold": approval.threshold,
    }


def run_submit(args: argparse.Namespace, client: Client, console: Console) -> Answer:
    proposal = merge_proposals([read_proposal(path) for path in args.proposals])
    answer = submit(client, proposal)
    _show(console, proposal, answer)
    return answer


def _sign(
    args: argparse.Namespace,
    proposal: Proposal,
    console: Console,
    passphrase: Ask,
    confirm: Confirm,
    also: Callable[[], None],
    *,
    fresh: bool,
) -> Approval[Review] | Approval[PolicyReview]:
    def agreed() -> bool:
        return bool(args.yes) or confirm(f"Sign {proposal.subject}?")

    def reviewed(review: Review) -> bool:
        show_review(console, review)
        also()
        return agreed()

    def policy_reviewed(review: PolicyReview) -> bool:
        show_policy_review(console, review)
        return agreed()

    manager = manager_of(args, passphrase)
    if proposal.release is None:
        return sign_policy(proposal, manager, confirm=policy_reviewed, fresh=fresh)
    return sign_release(proposal, manager, bundle=args.bundle, confirm=reviewed, fresh=fresh)


def _check_bundle(args: argparse.Namespace) -> None:
    if args.release == POLICY and args.bundle is not None:
        raise SettingsError("a policy is in no bundle: leave out --bundle")
    if args.release != POLICY and args.bundle is None:
        raise SettingsError("give your own copy of the bundle with --bundle: it is what the proposal is compared with")


def _number(args: argparse.Namespace) -> int | None:
    return None if args.release == POLICY else int(args.release)


def _kind(proposal: Proposal) -> str:
    return "policy" if proposal.release is None else "release"


def _show(console: Console, proposal: Proposal, answer: Answer) -> None:
    show = show_policy if proposal.release is None else show_release
    show(console, answer)


def _json(approval: Approval[Review] | Approval[PolicyReview]) -> Answer:
    review = asdict(approval.review) | {"expires": approval.review.expires.isoformat()}
    return {"person": approval.person, "review": review}
