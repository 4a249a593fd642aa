"""Depth and replicas of a queue over time, followed by two streams instead of by asking again and again."""

from __future__ import annotations

import csv
import io
import subprocess
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release

DEPTH = """
select count(*) filter (where status::text in ('QUEUED', 'PENDING')) || ' ' ||
       count(*) filter (where status::text in ('IN_PROGRESS', 'CANCELLING')) from tasks where queue = '{queue}'
\\watch 1
"""
REPLICAS = "{.spec.replicas} {.status.readyReplicas}{'\\n'}"


class Sample(NamedTuple):
    """One second: tasks that wait and run, pods that are ordered and ready."""

    second: int
    waiting: int
    running: int
    replicas: int
    ready: int


class Watch:
    """Samples once a second for as long as the block lasts."""

    def __init__(self, release: Release, queue: str) -> None:
        self.samples: list[Sample] = []
        self._pods = (0, 0)
        self._began = time.monotonic()
        kubectl = ["kubectl", "-n", release.namespace]
        psql = ["psql", "-X", "-q", "-At", "-U", "postgres", "-d", "taskflow"]
        self._streams = [
            _open([*kubectl, "get", f"deployment/{NAME}-{queue}", "--watch", "-o", f"jsonpath={REPLICAS}"]),
            _open([*kubectl, "exec", "-i", f"{NAME}-postgres-0", "--", *psql]),
        ]
        self._threads = [
            threading.Thread(target=self._read, args=(stream, take), daemon=True)
            for stream, take in zip(self._streams, (self._replicas, self._depth), strict=True)
        ]
        asked = self._streams[1].stdin
        assert asked is not None
        asked.write(DEPTH.format(queue=queue))
        asked.flush()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.kill()
            stream.wait(10)
        for thread in self._threads:
            thread.join(10)
        for stream in self._streams:
            for end in (stream.stdin, stream.stdout):
                if end is not None:
                    end.close()

    @property
    def most(self) -> int:
        """The most pods that were ordered."""
        return max((sample.replicas for sample in self.samples), default=0)

    def table(self) -> str:
        """The samples as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Sample._fields)
        writer.writerows(self.samples)
        return text.getvalue()

    def _replicas(self, line: str) -> None:
        ordered, _, ready = line.partition(" ")
        self._pods = int(ordered or 0), int(ready or 0)

    def _depth(self, line: str) -> None:
        waiting, _, running = line.partition(" ")
        second = round(time.monotonic() - self._began)
        self.samples.append(Sample(second, int(waiting), int(running), *self._pods))

    @staticmethod
    def _read(stream: subprocess.Popen[str], take: object) -> None:
        assert stream.stdout is not None
        assert callable(take)
        for line in stream.stdout:
            if line[:1].isdigit():
                take(line.strip())


def _open(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    )
