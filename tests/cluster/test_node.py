"""A node that is lost and comes back: its worker has become a zombie, whose results are fenced.

The kubelet is stopped, and the worker's pod loses its network: that is what the others see of a lost node. Its
processes go on. Needs the machine's own cluster, whose parts can be stopped.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import command, condition
from tests.cluster.release import NAME
from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.place import Place
    from tests.cluster.release import Release

SECONDS = 45.0
READ = """
import json, sys, psycopg2
host, password, query = sys.argv[1:]
connection = psycopg2.connect(host=host, user="postgres", dbname="taskflow", password=password, connect_timeout=5)
with connection.cursor() as cursor:
    cursor.execute(query)
    print(json.dumps(cursor.fetchall(), default=str))
"""


@pytest.mark.full
def test_the_results_of_a_lost_nodes_worker_are_fenced(
    release: Release, place: Place, say: Callable[[str], None]
) -> None:
    if not place.own:
        pytest.skip("stops the kubelet and cuts a pod off, which only the cluster of ../shared/cluster lets us do")
    ask = reader(release, place)
    with release.queue("zombie", scaling={"minReplicas": 2, "maxReplicas": 2}, drain=20) as queue, ExitStack() as mend:
        release.workers(queue, 2)
        ids = release.submit(queue, [{"value": one, "seconds": SECONDS} for one in range(2)])
        release.running(ids)
        [lost, *_] = ask(
            "select id::text, worker_id::text, (select facts->>'pod' from workers where workers.id = worker_id)"
            " from tasks where queue = 'zombie' order by id"
        )
        task, worker, pod = lost
        device = veth(place, release.kube.one(f"pod/{pod}")["status"]["podIP"])
        place.kubelet(signal.SIGSTOP)
        mend.callback(place.kubelet, signal.SIGCONT)
        place.inside("ip", "link", "set", device, "down")
        mend.callback(place.inside, "ip", "link", "set", device, "up")
        say(f"the kubelet stands still, and {pod} is cut off while it runs a task of {SECONDS:.0f} s")

        release.kube.until(lambda: not node_ready(), 90)
        say("the node is NotReady")
        dead = f"select 1 from workers where id = '{worker}' and state = 'dead'"
        release.kube.until(lambda: ask(dead), 60)
        rescued = f"select 1 from task_events where task_id = '{task}' and event_type::text = 'RESCUED'"
        release.kube.until(lambda: ask(rescued), 60)
        say("its worker was declared dead, and its task was rescued")
        # The zombie's child ends its task meanwhile; nobody hears of it yet.
        ended = (
            f"select 1 from tasks where id = '{task}' and clock_timestamp() - created_at > interval '{SECONDS + 5} s'"
        )
        release.kube.until(lambda: ask(ended), SECONDS + 30)
        mend.close()
        say("the network and the kubelet are back")
        release.kube.until(node_ready, 60)

        def fenced() -> list[dict[str, Any]]:
            query = "select message from task_events where event_type::text = 'FENCED' and task_id = %s::uuid"
            return release.rows(query, task)

        release.kube.until(fenced, 90)
        release.ended(ids, 180)
        release.settled()
        verdict = history.verify(release, ids).clean()
        told = release.attempts(task)
        [(_, answer)] = release.get(f"/v1/tasks/{task}/attempts")
    assert verdict.charged == 0, "a lost node charges nothing"
    death = answer["attempts"][0]["death"]
    assert death["reason"] == "NodeLost"
    say(f"why the first attempt was lost, as the API tells it: {death['reason']}, {death['message']}")
    for attempt in told:
        say(f"attempt {attempt['attempt']}: {attempt['event']}, {attempt['cause']}, {attempt['message'] or ''}")
    say("the zombie's result was fenced; both tasks completed with the results of their last attempts")


def node_ready() -> bool:
    [node] = json.loads(command("kubectl", "get", "nodes", "-o", "json"))["items"]
    return condition(node, "Ready").get("status") == "True"


def reader(release: Release, place: Place) -> Callable[[str], list[list[Any]]]:
    """Ask PostgreSQL from the host: what goes through the kubelet does not answer now, nor do Services."""
    address = release.kube.one(f"pod/{NAME}-postgres-0")["status"]["podIP"]
    password = superuser(release)

    def ask(query: str) -> list[list[Any]]:
        return json.loads(place.inside(sys.executable, "-c", READ, address, password, query))

    return ask


def superuser(release: Release) -> str:
    """The password of the bundled PostgreSQL's superuser, as its container has it."""
    environment = release.kube.inside(f"{NAME}-postgres-0", "cat", "/proc/1/environ")
    found = re.search(r"POSTGRES_PASSWORD=([^\0]+)", environment)
    assert found
    return found[1]


def veth(place: Place, address: str) -> str:
    """The host's end of a pod's network."""
    said = place.inside("ip", "-json", "neigh", "show", address)
    [mac] = {one["lladdr"] for one in json.loads(said) if "lladdr" in one}
    table = json.loads(place.inside("bridge", "-json", "fdb", "show", "br", "cni0"))
    return next(one["ifname"] for one in table if one["mac"] == mac)
