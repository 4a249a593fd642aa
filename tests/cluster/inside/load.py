"""Clients that submit keyed tasks until /tmp/stop appears, each until it is answered. Runs in a pod of the cluster.

The last line of its output is a JSON object: `answered` (key: the task's id and its value), `ways` (what submits met,
"cut 201" for one whose first try got no answer, counted), `problems`, and `slowest` in seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 60.0
STOP = Path("/tmp/stop")
AGAIN = 0.5  # seconds before the next try, when the answer names none
AT = urlsplit(os.environ["API_URL"])
BODY = json.loads(os.environ["BODY"])
PACE = float(os.environ["PACE"])
CLIENTS = int(os.environ["CLIENTS"])
END = time.monotonic() + float(os.environ["MOST_SECONDS"])

answered: dict[str, tuple[str, int]] = {}
ways: Counter[str] = Counter()
problems: list[str] = []
slowest = [0.0]
lock = threading.Lock()


class Face:
    """One keep-alive connection."""

    connection: http.client.HTTPConnection | None = None

    def post(self, body: dict[str, object], key: str) -> tuple[str, float, dict[str, str]]:
        """What came back: a status, or "refused" or "cut"; how long to wait before another try; and the body."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(str(AT.hostname), AT.port, timeout=20)
        headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json", "Idempotency-Key": key}
        try:
            self.connection.request("POST", "/v1/tasks", json.dumps(body).encode(), headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            self.connection = None
            return "refused", AGAIN, {}
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            return "cut", AGAIN, {}
        said = json.loads(text) if text.startswith(b"{") else {"text": text.decode(errors="replace")}
        if answer.status in {503, 429} and not answer.getheader("Retry-After"):
            problems.append(f"{answer.status} without Retry-After: {said}")
        return str(answer.status), float(answer.getheader("Retry-After") or AGAIN), said


def submit(face: Face, number: int, key: str) -> None:
    """Submit one task; problems are answers that no patient client should ever see."""
    body = {**BODY, "payload": {**BODY["payload"], "value": number}}
    began, met = time.monotonic(), []
    while time.monotonic() < began + PATIENCE:
        word, wait, said = face.post(body, key)
        met.append(word)
        if word in {"200", "201"}:
            with lock:
                answered[key] = (said["id"], number)
                ways[" ".join(met)] += 1
                slowest[0] = max(slowest[0], time.monotonic() - began)
            return
        if word not in {"refused", "cut", "503", "429", "409"}:
            problems.append(f"{word} {said}")
            return
        time.sleep(min(wait, 5.0))
    problems.append(f"{key} was not answered within {PATIENCE} s: {met}")


def live(client: int) -> None:
    """One client."""
    face, turn = Face(), 0
    while not STOP.exists() and time.monotonic() < END:
        turn += 1
        submit(face, client * 1_000_000 + turn, f"{os.environ['PREFIX']}-{client}-{turn}")
        time.sleep(PACE)


if __name__ == "__main__":
    threads = [threading.Thread(target=live, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": answered, "ways": ways, "problems": problems, "slowest": slowest[0]}), flush=True)
