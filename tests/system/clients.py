"""Clients that submit with keys until they are told to stop, each until it is answered; what they met is counted."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from services.dev import fleet as fleets
from tests.signals import until

if TYPE_CHECKING:
    from tests.system.world import World

PATIENCE = 60.0
AGAIN = 0.2


class Face:
    """One keep-alive connection to the API. Its calls do not hide what happens to them."""

    def __init__(self, address: str, key: str) -> None:
        self._at = urlsplit(address)
        self._key = key
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers (in lower case) and body. Raises OSError or HTTPException, and is usable after."""
        if self._connection is None:
            assert self._at.hostname is not None
            self._connection = http.client.HTTPConnection(self._at.hostname, self._at.port, timeout=20)
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(text) if text.startswith((b"{", b"[")) else text

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Clients:
    """So many threads, each submitting one task after the other for as long as the block lasts."""

    def __init__(self, world: World, number: int, body: dict[str, Any], *, pace: float = 0.03) -> None:
        """`body` is the task; between two of a client's submits lies at least `pace`."""
        self.met: Counter[str] = Counter()  # answers by status, "replay", "cut" (sent, no answer) and "refused"
        self.problems: list[str] = []
        self.answered: dict[str, str] = {}  # key: the task's id
        self.slowest = 0.0
        self._body, self._pace = body, pace
        self._world = world
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._live, args=(name,), daemon=True) for name in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let each of them have its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE + 20)
            assert not thread.is_alive()

    @property
    def ids(self) -> list[str]:
        return list(self.answered.values())

    def more(self, number: int, within: float = 20.0) -> None:
        """Wait until so many more submits were answered."""
        enough = len(self.answered) + number
        until(lambda: self.problems or len(self.answered) >= enough, within)

    def clean(self) -> None:
        """No answer was wrong, and each key got a task of its own."""
        assert self.problems[:5] == []
        assert len(set(self.ids)) == len(self.answered)

    def _live(self, name: int) -> None:
        face = Face(fleets.url(self._world.fleet.living("api")[0]), self._world.key)
        turn = 0
        try:
            while not self._stop.is_set():
                turn += 1
                self._submit(face, f"{id(self)}-{name}-{turn}")
                self._stop.wait(self._pace)
        except Exception as error:  # noqa: BLE001 - a thread's edge: it is told in the test
            self.problems.append(repr(error))
        finally:
            face.close()

    def _submit(self, face: Face, key: str) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                status, headers, said = face.call("POST", "/v1/tasks", self._body, key=key)
            except ConnectionRefusedError:
                self._count("refused")
            except (OSError, http.client.HTTPException):
                self._count("cut")
            else:
                self._count(str(status))
                if status in {200, 201}:
                    self._took(key, said["id"], time.monotonic() - began)
                    if headers.get("idempotent-replay") == "true":
                        self._count("replay")
                    return
                if status not in {503, 409, 429} or (status != 409 and int(headers.get("retry-after", "0")) < 1):
                    self.problems.append(f"{status} {headers} {said}")
                    return
            time.sleep(AGAIN)
        self.problems.append(f"{key} was not answered within {PATIENCE} s")

    def _count(self, word: str) -> None:
        with self._lock:
            self.met[word] += 1

    def _took(self, key: str, task: str, seconds: float) -> None:
        with self._lock:
            self.answered[key] = task
            self.slowest = max(self.slowest, seconds)
