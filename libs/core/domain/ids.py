"""Identifiers: UUID version 7, made before the first statement that uses them.

The layout is that of RFC 9562, section 5.7: 48 bits of Unix milliseconds, then random bits. Ids are only roughly
ordered by time; nothing in TaskFlow derives an order of running from them (that is `seq`, see design.md §5.2).
"""

from uuid import UUID

_FIXED = 0x7 << 76 | 0x2 << 62  # version and variant
_CHANCE = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)
_MILLISECONDS = (1 << 48) - 1


def uuid7(milliseconds: int, entropy: bytes) -> UUID:
    """Return the UUID of version 7 for `milliseconds` since the Unix epoch and at least 10 random bytes."""
    return UUID(bytes=uuid7_bytes(milliseconds, entropy))


def uuid7_bytes(milliseconds: int, entropy: bytes) -> bytes:
    """Return the 16 bytes of that UUID: for who makes thousands in a second."""
    chance = int.from_bytes(entropy[:10], "big") & _CHANCE
    return ((milliseconds & _MILLISECONDS) << 80 | _FIXED | chance).to_bytes(16, "big")
