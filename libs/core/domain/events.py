"""The words of the audit trail."""

from enum import StrEnum


class EventType(StrEnum):
    """What a row of the audit trail tells. STARTED and the endings of one (attempt, claim), joined, are an attempt."""

    CREATED = "CREATED"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRIED = "RETRIED"
    RELEASED = "RELEASED"
    RESCUED = "RESCUED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    QUARANTINED = "QUARANTINED"
    REDRIVEN = "REDRIVEN"
    REPRIORITIZED = "REPRIORITIZED"
    FENCED = "FENCED"
