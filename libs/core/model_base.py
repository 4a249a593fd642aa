"""What the models share: the base class, how Python's types are stored, enum types, sequences, defaults."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, DateTime, Double, Enum, LargeBinary, Sequence, Text, Uuid, text
from sqlalchemy.orm import DeclarativeBase

from core.domain.events import EventType
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType


class Base(DeclarativeBase):
    """The root of all models."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        UUID: Uuid,
        int: BigInteger,
        float: Double,
        bytes: LargeBinary,
        dict[str, Any]: JSON,
    }


task_status = Enum(TaskStatus, name="task_status", native_enum=True)
event_type = Enum(EventType, name="event_type", native_enum=True)
priority_type = Enum(PriorityType, name="priority_type", native_enum=True)

task_seq = Sequence("task_seq", metadata=Base.metadata)
task_event_seq = Sequence("task_event_seq", metadata=Base.metadata, cache=100)

NOW = text("clock_timestamp()")
FALSE = text("false")
TRUE = text("true")
ZERO = text("0")
