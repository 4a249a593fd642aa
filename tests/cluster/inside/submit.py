"""Submit the tasks given on stdin, a JSON list, in atomic batches; print their ids. Runs in a pod of the cluster."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

BATCH = 500
PATIENCE = 60.0


def post(tasks: list[dict[str, object]], key: str) -> list[str]:
    """Submit one batch, again and again until it is answered: the key makes that harmless."""
    headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json", "Idempotency-Key": key}
    body = json.dumps({"tasks": tasks}).encode()
    end = time.monotonic() + PATIENCE
    while True:
        asked = urllib.request.Request(os.environ["API_URL"] + "/v1/tasks:batch", body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return [item["id"] for item in json.load(answer)["tasks"]]
        except urllib.error.HTTPError as refused:
            if refused.code not in {409, 429, 503} or time.monotonic() > end:
                sys.exit(f"{refused.code} {refused.read().decode()}")
        except OSError as broken:
            if time.monotonic() > end:
                sys.exit(repr(broken))
        time.sleep(0.5)


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    ids = [post(wanted[at : at + BATCH], f"{sys.argv[1]}-{at}") for at in range(0, len(wanted), BATCH)]
    print(json.dumps([one for batch in ids for one in batch]))
