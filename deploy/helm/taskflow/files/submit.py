"""What `helm test` runs: submits a task over REST and waits for its result, with the standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

API, KEY = os.environ["API"], os.environ["API_KEY"]
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "QUARANTINED"}
END = time.monotonic() + float(os.environ["SECONDS"])
# One key for all tries: a submit whose answer was lost is answered with the task that it made.
IDEMPOTENCY = f"helm-test-{os.urandom(8).hex()}"


def say(text: str) -> None:
    """Print a line, with the seconds left."""
    print(f"[{END - time.monotonic():4.0f} s left] {text}", flush=True)


def ask(method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    """Send a request until it is answered or time is up; an answer that says no is the end."""
    headers = {"X-API-Key": KEY, "Content-Type": "application/json", "Idempotency-Key": IDEMPOTENCY}
    while True:
        request = urllib.request.Request(
            API + path, method=method, headers=headers, data=json.dumps(body).encode() if body else None
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code < 500 and error.code != 429:
                sys.exit(f"{method} {path}: {error.code} {text}")
            reason = f"{error.code} {text}"
        except (OSError, ValueError) as error:
            reason = str(error)
        if time.monotonic() > END:
            sys.exit(f"{method} {path}: time is up; the last answer was: {reason}")
        say(f"{method} {path}: {reason}; trying again")
        time.sleep(2)


task = {"type": os.environ["TASK"], "queue": os.environ["QUEUE"], "payload": {"name": "helm test"}}
say(f"submitting {json.dumps(task)} to {API}")
seen = ask("POST", "/v1/tasks", task)
path = f"/v1/tasks/{seen['id']}"
say(f"task {seen['id']} is {seen['status']}")
while seen["status"] not in ENDS:
    if time.monotonic() > END:
        sys.exit(f"time is up, and the task has not ended: {json.dumps(seen)}")
    time.sleep(1)
    before, seen = seen["status"], ask("GET", path)
    if seen["status"] != before:
        say(f"task {seen['id']} is {seen['status']}")
if seen["status"] != "COMPLETED":
    sys.exit(f"the task did not complete: {json.dumps(seen)}")
say(f"its result: {json.dumps(ask('GET', f'{path}/result'))}")
