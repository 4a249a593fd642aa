"""The lease in PostgreSQL: who may stand for leader. It only makes takeovers rare; the epoch decides."""

from dataclasses import dataclass
from uuid import UUID

from core.pool import Tx
from core.sql import statement


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as it was read; only a change of `renewals` means anything, seen on one's own clock."""

    holder: UUID | None
    renewals: int
    released: bool


async def read_lease(tx: Tx, name: str) -> LeaseRow | None:
    """Return the lease, or None when nobody has ever had it."""
    row = await tx.fetchrow(statement("lease_read"), name)
    return None if row is None else LeaseRow(row["holder"], row["renewals"], row["released"])


async def take_lease(tx: Tx, name: str, holder: UUID, renewals: int) -> bool:
    """Take the lease if its counter is still `renewals`; False when somebody was faster."""
    return await tx.fetchval(statement("lease_take"), name, holder, renewals) is not None


async def renew_lease(tx: Tx, name: str, holder: UUID) -> bool:
    """Renew a lease; False when it is another's by now."""
    return await tx.fetchval(statement("lease_renew"), name, holder) is not None


async def release_lease(tx: Tx, name: str, holder: UUID) -> None:
    """Give the lease back if it is still `holder`'s."""
    await tx.execute(statement("lease_release"), name, holder)


async def end_leaders(tx: Tx, prefix: str) -> list[str]:
    """End the sessions of former leaders, whose application_name begins with `prefix`; return their names."""
    return [row["name"] for row in await tx.fetch(statement("leaders_end"), prefix) if row["ended"]]


async def epoch_now(tx: Tx, name: str) -> int:
    """Return the epoch that leads `name`, 0 before the first. Only `guard` makes sure that it stays so."""
    return int(await tx.fetchval("select coalesce(max(epoch), 0) from leader where name = $1", name))
