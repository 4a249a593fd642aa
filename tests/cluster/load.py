"""Keyed clients in a pod of their own, for as long as a block lasts, and what came of their tasks."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from tests.cluster import manifests
from tests.cluster.kube import CommandFailed
from tests.system import history

if TYPE_CHECKING:
    from tests.cluster.release import Release
    from tests.system.history import Verdict

MOST_SECONDS = 1500


class Load:
    """So many clients, each submitting one task after the other to a queue."""

    def __init__(self, release: Release, queue: str, *, clients: int = 4, pace: float = 0.2, **task: Any) -> None:
        """`pace` is the seconds between two submits of a client; `task` goes into each body, its payload too."""
        self.answered: dict[str, tuple[str, int]] = {}  # key: the task's id, and the value it is to return
        self.ways: Counter[str] = Counter()  # what submits met: "201", "cut 200", "503 503 201"
        self.problems: list[str] = []
        self.slowest = 0.0
        self._release, self._queue = release, queue
        self._pod = f"load-{secrets.token_hex(3)}"
        body = {"type": "cluster_tasks:work", "queue": queue, "payload": {}, **task}
        self._manifest = release.client_pod(
            self._pod,
            [manifests.script("load.py")],
            BODY=json.dumps(body),
            PACE=str(pace),
            CLIENTS=str(clients),
            PREFIX=self._pod,
            MOST_SECONDS=str(MOST_SECONDS),
        )

    def __enter__(self) -> Self:
        self._release.kube.apply(self._manifest)
        self._release.kube.until(self.completed, 60, every=0.5)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let each client have its last answer, and read what they met."""
        kube = self._release.kube
        if kind is not None:  # the test has failed: only let others have the machine
            with suppress(CommandFailed):
                kube.inside(self._pod, "touch", "/tmp/stop")
            return
        kube.inside(self._pod, "touch", "/tmp/stop")
        kube("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{self._pod}", "--timeout=90s", within=100)
        said = json.loads(kube("logs", self._pod).splitlines()[-1])
        self.answered = {key: (task, value) for key, (task, value) in said["answered"].items()}
        self.ways = Counter(said["ways"])
        self.problems, self.slowest = said["problems"], said["slowest"]
        kube("delete", "pod", self._pod, "--wait=false")

    def completed(self) -> int:
        """How many tasks of the queue have COMPLETED."""
        query = "select count(*) from tasks where queue = %s and status::text = 'COMPLETED'"
        return int(self._release.one(query, self._queue))

    def more(self, number: int, within: float = 60.0) -> None:
        """Wait until so many more have COMPLETED: the product works."""
        enough = self.completed() + number
        self._release.kube.until(lambda: self.completed() >= enough, within, every=0.5)

    @property
    def ids(self) -> list[str]:
        """The tasks that were acknowledged."""
        return [task for task, _ in self.answered.values()]

    def verify(self, within: float = 120.0) -> Verdict:
        """Wait for the end of all tasks; lost 0, wrong 0, phantoms 0, each attempt with one end and a cause."""
        assert self.problems[:5] == []
        assert self.answered
        self._release.ended(self.ids, within)
        verdict = history.verify(self._release, self.ids).clean()
        found = self._release.rows("select id::text, result from tasks where queue = %s", self._queue)
        results = {row["id"]: row["result"] for row in found}
        expected = dict(self.answered.values())
        wrong = {task for task, value in expected.items() if results.get(task) != value}
        assert wrong == set()
        assert len(expected) == len(self.answered), "two keys have one task"
        assert set(results) - set(expected) == set(), "tasks that nobody was told of"
        return verdict

    def patient(self) -> None:
        """No keyed client saw a 500, or anything else that is no 429, 503, 409 or cut connection."""
        seen = {word for way in self.ways for word in way.split()}
        assert seen <= {"200", "201", "409", "429", "503", "cut", "refused"}, self.ways

    def one_retry(self) -> None:
        """Every submit was answered at the first or the second try."""
        assert [way for way in self.ways if len(way.split()) > 2] == [], self.ways
