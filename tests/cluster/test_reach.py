"""What a task in a pod of the chart reaches that is not its own, with each Landlock that the node's kernel offers."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

from tests import reaching
from tests.cluster import manifests
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

SERVICES = ("api", "scheduler", "operator")
VERSION = "from taskflow_queue import runner_landlock as landlock; print(landlock.version())"


def columns(offered: int) -> dict[int, str]:
    """What the fork server is to take the kernel's Landlock for, and the column of SECURITY.md that holds then."""
    versions = [version for version in (0, 2, 5, offered) if version <= offered]
    old, newest = reaching.OLD_LANDLOCK, reaching.LANDLOCK
    return {version: reaching.AS_USER if version < 2 else old if version < 6 else newest for version in versions}


def container(version: int) -> dict[str, Any]:
    """A worker whose fork server believes in this version."""
    variables = {
        "PYTHONPATH": manifests.script("").rstrip("/"),
        "TASKFLOW_WORKER_MODULES": "reach",
        "TASKFLOW_WORKER_PASS_ENV": reaching.VERSION,
        reaching.VERSION: str(version),
    }
    return {"env": [{"name": name, "value": value} for name, value in variables.items()]}


def password(release: Release) -> str:
    """That of the role taskflow_worker."""
    data = release.kube.one(f"secret/{NAME}-database")["data"]
    return base64.b64decode(data["worker-password"]).decode()


def found_by_a_task(release: Release, queue: str) -> dict[str, dict[str, str]]:
    """What a task found that looked for another one's payload and for the database's password."""
    canary, finished = secrets.token_hex(16), "/tmp/finished"
    look = {"payload": canary[::-1], "password": password(release)[::-1], "others": {}, "finished": finished}
    [held] = release.submit(queue, [{"canary": canary, "until": finished}], "reach:hold")
    release.running([held])
    [tried] = release.submit(queue, [look], "reach:reach")
    ended = release.ended([held, tried])
    row = release.rows("select result::text, error::text from tasks where id = %s::uuid", tried)[0]
    assert ended[tried] == "COMPLETED", row["error"]
    answers: dict[str, dict[str, str]] = json.loads(row["result"])
    return answers


def test_a_task_in_a_pod_reaches_what_security_md_says(release: Release, say: Callable[[str], None]) -> None:
    offered = int(release.kube.inside("client", "python", "-c", VERSION))
    say(f"the node's kernel offers Landlock {offered}" if offered else "the node's kernel offers no Landlock")
    tables = {}
    for version, column in columns(offered).items():
        name, size = f"reach-{version}", {"minReplicas": 1, "maxReplicas": 1}
        with release.queue(name, scaling=size, concurrency=2, container=container(version)) as queue:
            [worker] = release.workers(queue, 1)
            answers = found_by_a_task(release, queue)
            lines = release.kube("logs", worker).splitlines()
        tables[f"pod, Landlock {version or 'none'}"] = answers
        assert reaching.FOUND not in {said for one in answers.values() for said in one.values()} or version < 2
        assert reaching.FOUND not in {*answers["supervisor"].values(), *answers["fork server"].values()}
        assert reaching.cells(answers) == reaching.column(column)
        assert len([line for line in lines if "confined" in line]) == int(version < 6)
    for line in reaching.as_markdown(tables).splitlines():
        say(line)


def test_who_is_let_into_a_pod_cannot_read_the_passwords_of_its_service(release: Release) -> None:
    for service in SERVICES:
        [pod, *_] = release.kube.ready(service)
        assert "Permission denied" in release.kube.refused("exec", pod, "--", "cat", "/proc/1/environ")
