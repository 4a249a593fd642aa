"""What is in the four images, and what is not."""

from __future__ import annotations

import json

import pytest

from tests.contract.test_lock import SERVER, pinned
from tests.images import boxes
from tests.images.boxes import ROLES

PYTHON = "/opt/taskflow/bin/python"
INSTALLED = """
import importlib.metadata, json
every = importlib.metadata.distributions()
print(json.dumps({one.metadata["Name"].lower().replace("_", "-"): one.version for one in every}))
"""
UNCOMPILED = """
import importlib.util, pathlib
for file in pathlib.Path("/opt").rglob("*.py"):
    if "site-packages" in file.parts and not pathlib.Path(importlib.util.cache_from_source(str(file))).exists():
        print(file)
"""


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(role: str) -> str:
    return boxes.names()[role]


def installed(image: str, python: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(boxes.run(image, python, "-I", "-c", INSTALLED).stdout)
    return found


def test_it_runs_as_nobody_and_the_process_is_python_itself(image: str, role: str) -> None:
    config = boxes.config(image)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == [PYTHON, "-I", "-u", "-m", f"services.{role}.main"]
    assert config.get("WorkingDir", "/") == "/"
    assert config["Labels"]["org.opencontainers.image.version"] == SERVER["project"]["version"]


def test_its_environment_is_the_lock_file_and_our_package(image: str, role: str) -> None:
    found = installed(image, PYTHON)
    ours = {"taskflow-server", "taskflow-queue"} if role == "worker" else {"taskflow-server"}
    assert found.keys() & {"taskflow-server", "taskflow-queue", "pip", "setuptools"} == ours
    assert {name: version for name, version in found.items() if name not in ours}.items() <= pinned(role).items()


def test_nobody_can_write_but_where_everybody_can(image: str) -> None:
    looks = "find / -xdev -writable ! -type l -not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*' 2>/dev/null"
    found = boxes.run(image, "sh", "-c", looks).stdout.split()
    assert set(found) <= {"/tmp", "/var/tmp", "/run/lock", "/var/lock", "/run/.containerenv"}


def test_nothing_is_left_of_the_build(image: str) -> None:
    looks = (
        "ls -d /build /own /src /tmp/* /var/tmp/* /var/cache/apt/archives/*.deb /*/.cache /opt/*/bin/hatchling;"
        " which gcc cc clang make ld"
    )
    assert boxes.run(image, "sh", "-c", looks).stdout == ""


def test_all_bytecode_is_there(image: str) -> None:
    assert boxes.run(image, PYTHON, "-I", "-c", UNCOMPILED).stdout == ""


def test_a_missing_setting_is_one_line_and_exit_code_2(image: str, role: str) -> None:
    ran = boxes.run(image, *boxes.config(image)["Entrypoint"])
    assert "is not set" in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr
    assert "exited with status 2" in ran.stderr or ran.returncode == 2  # buildah says it in words


def test_the_migrations_are_in_the_api_image() -> None:
    ran = boxes.run(boxes.names()["api"], PYTHON, "-I", "-u", "-m", "core.migrate")
    assert "DATABASE_URL is not set" in ran.stderr


def test_the_users_environment_has_the_sdk_the_examples_and_pip_and_comes_first() -> None:
    image = boxes.names()["worker"]
    found = installed(image, "/opt/app/bin/python")
    assert {"taskflow-queue", "pip"} <= found.keys()
    assert "taskflow-server" not in found
    looks = (
        "for name in python pip taskflow; do command -v $name; done;"
        " python -c 'import examples.hello, examples.wordcount'"
    )
    told = boxes.run(image, "sh", "-c", looks)
    assert told.stdout.split() == ["/opt/app/bin/python", "/opt/app/bin/pip", "/opt/app/bin/taskflow"]
    assert told.returncode == 0, told.stderr
