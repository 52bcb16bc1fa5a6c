"""One update check, from the timestamp to a release on trial.

    ask for the timestamp ──► the same, nothing expired ──► decide on the plan in hand ──► nothing to do: one request
            │ new, or expired                                           │ install
            └──► TUF's workflow ──► policy, plan, ceilings ──► decide   │
                        ▲                                        │      │
                        └────────────────────────────────────────┼──────┘
                                                                 ▼ install
                                        rules ──► download, verify, stage ──► rules ──► canary ──► activate as trying

Whatever goes wrong on the way ends in an enumerated outcome, and what runs keeps running.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import slots
from edge_runtime.bundle import check_channel, check_model
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.device import Device
from edge_runtime.device_state import DeviceState
from edge_runtime.errors import (
    ConfigurationError,
    InvalidName,
    Outcome,
    StoreError,
    StoreFull,
    UpdateError,
)
from edge_runtime.store import Slot, Store
from edge_runtime.update import canary, conditional
from edge_runtime.update.conditional import Scope, Verified
from edge_runtime.update.conditions import UpdateRules, hold, hold_check
from edge_runtime.update.decision import Action, Decision, decide, waits
from edge_runtime.update.pacing import Pacing, Wait
from edge_runtime.update.plan import Ceiling, Plan
from edge_runtime.update.timekeeping import ClockDoubt, SignedTime, doubt
from edge_runtime.update.trying import at_hand, put_on_trial
from edge_runtime.waits import Purpose, Waits

if TYPE_CHECKING:
    import httpx

    from edge_runtime.update.fetcher import Answer, Transport
    from edge_runtime.update.repository import Repository

__all__ = ["CheckResult", "Updater"]

AGE_STEP_S = 60.0  # how often, at most, a growing age is written to disk


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How a check ended. ``release`` is the one that the outcome is about; ``active`` the one to run now, None for
    none; ``plan`` the plan in force, if it is known. ``bytes`` are body bytes as they came over the network. ``notes``:
    what else must be reported, as (outcome, release, detail). ``clock``: what speaks against this device's clock."""

    outcome: Outcome
    release: int | None
    detail: str
    plan: Plan | None
    active: int | None
    requests: int
    bytes: int
    notes: tuple[tuple[Outcome, int | None, str], ...] = ()
    clock: ClockDoubt | None = None


class Updater:
    """Keeps the releases in one `Store` as its channel's plan asks. Several threads may call it; they take turns.

    ``root`` is the pinned TUF root metadata; ``server`` the base URL, with metadata under ``/metadata/`` and targets
    under ``/targets/``; ``engines`` the artifact targets that this device can load, best first. ``http`` makes the
    client that the updater keeps until `close`; ``try_out`` is the canary. ``rules`` say when to download, ``state``
    samples what they are about, and a download that takes more than ``longest_s`` seconds goes on at the next check.
    ``wait`` stands in for sleeping in tests. ``waits`` remembers when the server asked to come back later. Loads tuf
    and httpx at the first check. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        *,
        store: Store,
        device: Device,
        model: str,
        channel: str,
        root: bytes,
        server: str,
        engines: Sequence[str],
        http: Callable[[], httpx.Client] | None = None,
        clock: Clock | None = None,
        try_out: Callable[[Slot], None] = canary.run_canary,
        rules: UpdateRules | None = None,
        state: Callable[[], DeviceState] = DeviceState,
        longest_s: float = math.inf,
        wait: Wait | None = None,
        waits: Waits | None = None,
    ) -> None:
        try:
            check_model(model)
            check_channel(channel)
        except InvalidName as error:
            raise ConfigurationError(str(error)) from error
        if not server.startswith(("http://", "https://")):
            raise ConfigurationError(f"{server!a} is not a server address like https://models.example.com")
        self._store = store
        self._device = device
        self._engines = tuple(engines)
        self._root = root
        self._scope = Scope(
            server=server.rstrip("/"), root_sha256=hashlib.sha256(root).hexdigest(), model=model, channel=channel
        )
        self._http = http
        self._clock: Clock = SystemClock() if clock is None else clock
        self._try_out = try_out
        self._rules = rules or UpdateRules()
        self._state = state
        self._longest_s = longest_s
        self._stopping = threading.Event()
        self._wait: Wait = wait or self._stopping.wait
        self._waits = waits or Waits(store.root, store.disk, self._clock)
        self._signed_time = SignedTime(store.disk, store.root / "clock.json")
        self._to_come: tuple[int | None, int] = (None, 0)  # a release, and the bytes that were still to come of it
        self._transport: Transport | None = None
        self._verified: Verified | None = None
        self._notes: list[tuple[Outcome, int | None, str]] = []
        self._mutex = threading.Lock()

    @property
    def plan(self) -> Plan | None:
        """The plan of the last check that could verify one, also of an earlier process; it may be out of date."""
        verified = self._remembered()
        return None if verified is None else verified.plan

    def recheck(self) -> None:
        """The folder of trusted metadata was changed by another than this: the next check is a full one."""
        with self._mutex:
            self._verified = None

    def stop(self) -> None:
        """From any thread, for good: a download that is under way ends at its next chunk, as does one that a later
        check begins; then `check` raises `RuntimeClosed`."""
        self._stopping.set()

    def close(self) -> None:
        """Close the connection. A later check opens another."""
        with self._mutex:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def check(self) -> CheckResult:
        """One whole check. Failures are outcomes, and never touch what runs.

        Whatever the outcome, `CheckResult.active` is the release to run from now on: `INSTALLED` and `RETURNED` change
        it, and so does a revocation, whose check may go on to end in any outcome. Raises `RuntimeClosed` after `stop`,
        where there was something to download.
        """
        with self._mutex:
            transport = self._connected()
            requests, received = transport.requests, transport.received
            transport.clock_off_s = None
            self._notes.clear()
            try:
                decision = self._check(transport)
            except (UpdateError, StoreError) as error:
                decision = _failure(error, None)
            clock = doubt(self._clock.wall(), signed=self._signed_time.newest, server_off_s=transport.clock_off_s)
            if clock is not None:
                decision = self._doubted(decision, clock)
            state = self._store.slots
            return CheckResult(
                outcome=decision.outcome,
                release=decision.release,
                detail=decision.detail,
                plan=None if self._verified is None else self._verified.plan,
                active=None if state.active is None or state.disabled else state.active.release,
                requests=transport.requests - requests,
                bytes=transport.received - received,
                notes=tuple(self._notes),
                clock=clock,
            )

    def _check(self, transport: Transport) -> Decision:
        left_s = self._waits.left_s(Purpose.UPDATES)
        if left_s > 0:
            raise UpdateError(Outcome.DEFERRED_SERVER, f"the server asked to wait; {left_s:.0f} s are left")
        held = hold_check(self._rules, self._state()) if self._rules.metered == "never" else None
        if held is not None:
            raise UpdateError(held.outcome, held.why)
        known = self._remembered()
        answer = conditional.ask(transport, f"{self._scope.server}/metadata/timestamp.json", known)
        if known is not None and conditional.unchanged(known, answer, self._now()):
            decision = self._decide(known)
            if decision.action is not Action.INSTALL:
                return self._settle(decision)
            release, to_come = self._to_come
            try:
                self._permit(decision, to_come if release == decision.release else 0)
            except UpdateError as error:
                return _failure(error, decision.release)
        before = self._store.slots.active
        repository = self._refreshed(transport, answer)
        verified, problem = self._verify(repository)
        decision = self._decide(verified)
        if decision.action is Action.INSTALL:
            return self._install(repository, verified, decision)
        decision = self._settle(decision)
        if decision.action is not Action.NOTHING:
            return decision
        if before is not None and self._store.slots.active != before:
            return replace(decision, outcome=Outcome.REVOKED, release=before.release, detail="what ran here is revoked")
        if problem is not None:
            raise problem
        return decision

    def _refreshed(self, transport: Transport, answer: Answer) -> Repository:
        """TUF's whole workflow. Raises `UpdateError` and `StoreError`."""
        from edge_runtime.update.repository import Repository

        repository = Repository(
            scope=self._scope,
            root=self._root,
            folder=self._store.root,
            transport=transport,
            disk=self._store.disk,
            now=self._now(),
        )
        repository.refresh(answer)
        return repository

    def _verify(self, repository: Repository) -> tuple[Verified, UpdateError | None]:
        """Take the floor and the revocations, then the plan and its ceilings, and keep the record of it all.

        A ceiling that cannot be read is a problem for who wants to join, not for who has to go back: it is returned.
        """
        policy = repository.policy()
        self._store.apply(partial(slots.restrict, min_release=policy.min_release, revoked=policy.revoked))
        plan = repository.plan()
        ceilings: dict[int, Ceiling] = {}
        problem: UpdateError | None = None
        for release in () if plan is None else (plan.candidate, plan.baseline):
            try:
                ceiling = None if release is None else repository.ceiling(release)
            except UpdateError as error:
                problem = error
                continue
            if release is not None and ceiling is not None:
                ceilings[release] = ceiling
        verified = Verified(
            # Without a digest the record never holds, so the next check tries to read the ceiling again.
            timestamp_sha256=repository.timestamp_sha256 if problem is None else conditional.NEVER,
            etag=repository.etag if problem is None else None,
            expires=repository.expires,
            plan=plan,
            ceilings=ceilings,
        )
        conditional.save(self._store.disk, self._record, self._scope, verified)
        repository.forget_other_documents()
        self._verified = verified
        return verified, problem

    def _decide(self, verified: Verified) -> Decision:
        plan = verified.plan
        if plan is None:
            return Decision(
                action=Action.NOTHING,
                release=None,
                outcome=Outcome.NO_PLAN,
                detail=f"the server has no rollout of {self._scope.model} on channel {self._scope.channel} yet",
            )
        now, state = self._clock.boot(), self._store.slots
        ages = {release: slots.age_s(state, release, now) for release in verified.ceilings}
        written = {entry.release: entry.boot_s for entry in state.sightings}
        new = any(release not in written for release in ages)
        old = any(not 0 <= now - written[release] < AGE_STEP_S for release in ages if release in written)
        if new or (old and waits(plan, ages=ages, ceilings=verified.ceilings)):
            state = self._store.apply(partial(slots.sight, releases=ages, boot_s=now))
        return decide(plan, self._device, state, ages=ages, ceilings=verified.ceilings)

    def _settle(self, decision: Decision) -> Decision:
        """Do what needs no download."""
        if decision.action is Action.RETURN:
            self._store.apply(slots.switch_back)
        self._store.apply(partial(slots.disable, disabled=decision.action is Action.DISABLE))
        return decision

    def _install(self, repository: Repository, verified: Verified, decision: Decision) -> Decision:
        plan, release = verified.plan, decision.release
        if plan is None or release is None:
            raise ValueError("a decision to install names a release of a plan")
        pacing = Pacing(
            clock=self._clock,
            wait=self._wait,
            bytes_per_s=self._rules.bytes_per_s,
            longest_s=self._longest_s,
            permit=partial(self._permit, decision),
        )
        try:
            pacing.ask(0)
            slot = at_hand(self._store, release, repository.manifest_sha256(release)) or repository.install(
                release, self._store, self._device, self._engines, lambda *what: self._notes.append(what), pacing
            )
            self._signed_time.learn(slot.manifest.created, repository.expires)
            pacing.ask(0)
            put_on_trial(
                self._store,
                slot,
                self._try_out,
                attempt=plan.attempt,
                rollout=plan.rollout,
                keep=decision.outcome is not Outcome.RETURNED,  # never go back to what the plan rolls back
                disabled=False,
            )
        except (UpdateError, StoreError) as error:
            self._to_come = (release, pacing.to_come)
            return _failure(error, release)
        return decision

    def _permit(self, decision: Decision, bytes_to_come: int) -> None:
        """Raise `UpdateError` with a ``DEFERRED_…`` outcome if the rules hold back what was decided."""
        local = self._clock.wall().astimezone(self._rules.zone())
        held = hold(self._rules, self._state(), local, decision, bytes_to_come=bytes_to_come)
        if held is not None:
            raise UpdateError(held.outcome, held.why)

    def _doubted(self, decision: Decision, clock: ClockDoubt) -> Decision:
        """A clock that is ahead is why metadata looks expired; one that is far off is worth a word in any case."""
        if decision.outcome is Outcome.METADATA_EXPIRED and clock.off_s > 0:
            detail = f"{clock}: set it. If it is right, new metadata is withheld. {decision.detail}"
            return replace(decision, outcome=Outcome.CLOCK_WRONG, detail=detail)
        if clock.far:
            self._notes.append((Outcome.CLOCK_WRONG, None, str(clock)))
        return decision

    def _now(self) -> datetime:
        """What expiry is compared with: the wall clock, but never a time that is certainly past."""
        return max(self._clock.wall(), self._signed_time.newest)

    @property
    def _record(self) -> Path:
        return self._store.root / conditional.RECORD_FILE

    def _remembered(self) -> Verified | None:
        if self._verified is None:
            self._verified = conditional.load(self._store.disk, self._record, self._scope)
        return self._verified

    def _connected(self) -> Transport:
        from edge_runtime.update.fetcher import Transport, default_client

        if self._transport is None:
            slow_down = partial(self._waits.asked, Purpose.UPDATES)
            self._transport = Transport(
                self._http or partial(default_client, self._scope.server), self._clock, slow_down
            )
        return self._transport


def _failure(error: UpdateError | StoreError, release: int | None) -> Decision:
    if isinstance(error, UpdateError):
        return Decision(action=Action.NOTHING, release=release, outcome=error.outcome, detail=error.detail)
    outcome = Outcome.DOWNLOAD_NO_SPACE if isinstance(error, StoreFull) else Outcome.STORE_FAILED
    return Decision(action=Action.NOTHING, release=release, outcome=outcome, detail=str(error))
