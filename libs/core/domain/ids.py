"""Identifiers: UUID version 7, made before the first statement that uses them.

The layout is that of RFC 9562, section 5.7: 48 bits of Unix milliseconds, then random bits. Ids are only roughly
ordered by time; nothing in TaskFlow derives an order of running from them (that is `seq`, see design.md §5.2).
"""

from uuid import UUID

_MILLISECOND_BITS = 48


def uuid7(milliseconds: int, entropy: bytes) -> UUID:
    """Return the UUID of version 7 for `milliseconds` since the Unix epoch and at least 10 random bytes."""
    value = (milliseconds & ((1 << _MILLISECOND_BITS) - 1)) << 80
    value |= int.from_bytes(entropy[:10], "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)
