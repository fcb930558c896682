"""The contract of `InvitationStore`: each implementation runs these tests by subclassing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from chatelaine.pki.invitation import InvitationOutcome, InvitationStore, digests_equal, secret_digest

NOW = 1_800_000_000
LATER = NOW + 1800
ONE, OTHER = secret_digest(b"1" * 32), secret_digest(b"2" * 32)


class InvitationStoreContract(ABC):
    """Subclass as `Test…`, and give `store` fixtures over one and the same world."""

    @abstractmethod
    def open_store(self) -> InvitationStore:
        """A store over the world of this test; a second call is a second process over the same world."""

    async def test_an_invitation_admits_once(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        assert await store.consume("hsm-a", ONE, NOW) is InvitationOutcome.CONSUMED

    async def test_a_replayed_invitation_is_refused(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        await store.consume("hsm-a", ONE, NOW)
        assert await store.consume("hsm-a", ONE, NOW) in {
            InvitationOutcome.ALREADY_USED,
            InvitationOutcome.NOT_INVITED,
        }

    async def test_an_invitation_used_before_a_crash_stays_used(self) -> None:
        await self.open_store().create("hsm-a", ONE, LATER)
        await self.open_store().consume("hsm-a", ONE, NOW)
        assert await self.open_store().consume("hsm-a", ONE, NOW) is not InvitationOutcome.CONSUMED

    async def test_of_racing_callers_exactly_one_is_admitted(self) -> None:
        await self.open_store().create("hsm-a", ONE, LATER)
        stores = [self.open_store() for _ in range(8)]
        outcomes = await asyncio.gather(*(store.consume("hsm-a", ONE, NOW) for store in stores))
        assert outcomes.count(InvitationOutcome.CONSUMED) == 1

    async def test_an_expired_invitation_is_refused(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        assert await store.consume("hsm-a", ONE, LATER) is InvitationOutcome.EXPIRED

    async def test_a_guessed_secret_is_refused_and_does_not_use_up_the_invitation(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        assert await store.consume("hsm-a", OTHER, NOW) is InvitationOutcome.WRONG_SECRET
        assert await store.consume("hsm-a", ONE, NOW) is InvitationOutcome.CONSUMED

    async def test_an_invitation_of_another_host_is_refused(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        await store.create("hsm-b", OTHER, LATER)
        assert await store.consume("hsm-b", ONE, NOW) is InvitationOutcome.WRONG_SECRET
        assert await store.consume("hsm-a", ONE, NOW) is InvitationOutcome.CONSUMED

    async def test_a_host_that_nobody_invited_is_refused(self) -> None:
        assert await self.open_store().consume("hsm-z", ONE, NOW) is InvitationOutcome.NOT_INVITED

    async def test_a_newer_invitation_voids_the_older_one(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        await store.create("hsm-a", OTHER, LATER)
        assert await store.consume("hsm-a", ONE, NOW) is InvitationOutcome.WRONG_SECRET
        assert await store.consume("hsm-a", OTHER, NOW) is InvitationOutcome.CONSUMED

    async def test_a_new_invitation_after_use_admits_again(self) -> None:
        store = self.open_store()
        await store.create("hsm-a", ONE, LATER)
        await store.consume("hsm-a", ONE, NOW)
        await store.create("hsm-a", OTHER, LATER)
        assert await store.consume("hsm-a", OTHER, NOW) is InvitationOutcome.CONSUMED


class MemoryInvitations:
    """Invitations in memory: the world is a dict that several stores may share."""

    def __init__(self, world: dict[str, tuple[str, int, bool]]) -> None:
        self.world = world

    async def create(self, host: str, secret_digest: str, expires_at: int) -> None:
        self.world[host] = (secret_digest, expires_at, False)

    async def consume(self, host: str, secret_digest: str, now: int) -> InvitationOutcome:
        await asyncio.sleep(0)
        if host not in self.world:
            return InvitationOutcome.NOT_INVITED
        digest, expires_at, used = self.world[host]
        if not digests_equal(digest, secret_digest):
            return InvitationOutcome.WRONG_SECRET
        if used:
            return InvitationOutcome.ALREADY_USED
        if now >= expires_at:
            return InvitationOutcome.EXPIRED
        self.world[host] = (digest, expires_at, True)
        return InvitationOutcome.CONSUMED
