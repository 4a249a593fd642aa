"""Who this worker is: a new id for every process and after every death; dead is one-way."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from core import clock
from core.domain.ordering import Lane
from core.domain.task import WorkerFace

if TYPE_CHECKING:
    from services.worker.catalogue import Catalogue


class Identity:
    """The id under which this worker claims, and how sure it is that it still lives."""

    def __init__(self, *, lease_seconds: float, facts: dict[str, str] | None = None) -> None:
        """`facts` say where this process runs: pod, pod_uid, namespace, node, template, as far as known."""
        self._lease = lease_seconds
        self._facts = facts or {}
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.id: UUID = uuid4()
        self.secret: UUID = uuid4()
        self.registered = False
        self.known = False  # registered, under this id or an earlier one
        self._beaten = clock.monotonic()

    def beaten(self) -> None:
        """Note that PostgreSQL knows: this worker lives."""
        self._beaten = clock.monotonic()

    @property
    def uncertain(self) -> bool:
        """Whether two thirds of the lease have passed without a beat: then nothing new is begun."""
        return not self.registered or clock.monotonic() - self._beaten > self._lease * 2 / 3

    def renew(self) -> None:
        """Take a new id and a new secret, after the old id was declared dead."""
        self.id, self.secret = uuid4(), uuid4()
        self.registered = False

    def face(self, catalogue: Catalogue, queues: tuple[str, ...], *, children: int, slots: int) -> WorkerFace:
        """How it introduces itself."""
        return WorkerFace(
            id=self.id,
            secret=self.secret,
            name=self.name,
            queues=queues,
            sync_types=catalogue.types(Lane.SYNC),
            async_types=catalogue.types(Lane.ASYNC),
            sync_slots=children,
            async_slots=children * slots,
            pid=os.getpid(),
            facts=self._facts,
        )
