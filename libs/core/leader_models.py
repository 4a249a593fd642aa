"""The tables that belong to whoever leads, as SQLAlchemy models."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from core.domain.ordering import PriorityType
from core.model_base import FALSE, NOW, ZERO, Base, priority_type


class Leader(Base):
    """The epoch: the one number that decides whose leader transactions count."""

    __tablename__ = "leader"

    name: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(server_default=ZERO)
    holder: Mapped[UUID | None]
    since: Mapped[datetime] = mapped_column(server_default=NOW)


class Leases(Base):
    """Who may stand for leader, outside Kubernetes. Only a change of `renewals` counts, seen on one's own clock."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[UUID | None]
    renewals: Mapped[int] = mapped_column(server_default=ZERO)
    released: Mapped[bool] = mapped_column(server_default=FALSE)


class ReadyFloors(Base):
    """From where on there can be QUEUED tasks of a (queue, type, priority): none has a `seq` up to this one.

    Without a row that is 0. Why it is true, and stays true, is said in core/domain/floors.py.
    """

    __tablename__ = "ready_floors"

    queue: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    priority: Mapped[PriorityType] = mapped_column(priority_type, primary_key=True)
    seq: Mapped[int]

    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
