"""Fixtures of the tests on a real cluster: `make cluster-test`. One release for the whole run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import place as places
from tests.cluster import release as releases
from tests.cluster.place import ASKED, FULL, IMAGES_READY, REGISTRY, ROLES, ROOT, STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.place import Place
    from tests.cluster.release import Release

HERE = Path(__file__).parent
LOGS = Path(os.environ.get("TASKFLOW_CLUSTER_LOGS", ROOT / ".taskflow/cluster-logs"))
# The installation first, what breaks things towards the end, and the uninstallation last.
ORDER = (
    "install",
    "habits",
    "resources",
    "rights",
    "reach",
    "scaling",
    "types",
    "rollout",
    "memory",
    "deaths",
    "deletion",
    "rendered",
    "namespaces",
    "kills",
    "lease",
    "node",
    "releases",
    "upgrade",
)
SECONDS = 900


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: of make cluster-test FULL=1 only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring them into order, give them time, and leave them alone unless they were asked for."""
    ours = [item for item in items if HERE in item.path.parents]
    rank = {f"test_{name}": number for number, name in enumerate(ORDER)}
    order = iter(sorted(ours, key=lambda item: rank.get(item.path.stem, len(ORDER))))
    items[:] = [next(order) if HERE in item.path.parents else item for item in items]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))
        if not ASKED:
            item.add_marker(pytest.mark.skip(reason="needs a cluster: make cluster-test"))
        elif item.get_closest_marker("full") and not FULL:
            item.add_marker(pytest.mark.skip(reason="full size only: make cluster-test FULL=1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Collect the logs of every release at the moment of a failure, before anything is cleaned up."""
    report = yield
    if report.failed and HERE in item.path.parents:
        for release in item.session.stash.get(RELEASES, []):
            folder = LOGS / item.name / release.namespace
            release.collect(folder)
            report.sections.append(("cluster", f"the cluster's logs are in {folder}"))
    return report


RELEASES: pytest.StashKey[list[Release]] = pytest.StashKey()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line where people see it: the run's log is the proof."""

    def aloud(text: str) -> None:
        with capsys.disabled():
            print(f"  {text}", flush=True)

    return aloud


@pytest.fixture(scope="session")
def place() -> Place:
    """The cluster, up and with our images."""
    found = places.find()
    assert found is not None, "there is no cluster: set KUBECONFIG, or have ../shared/cluster"
    releases.sweep()
    if not IMAGES_READY:
        assert found.own, "load the images of `make images` into your cluster, then set TASKFLOW_CLUSTER_IMAGES=ready"
        subprocess.run([places.SCRIPT, "base-images"], check=True, timeout=1200)
        subprocess.run(["make", "-C", ROOT, "images"], check=True, timeout=1800)
        found.load(*STORES, *(f"{REGISTRY}/taskflow-{role}:{version()}" for role in ROLES))
    return found


def version() -> str:
    """The chart's appVersion."""
    lines = (releases.CHART / "Chart.yaml").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip().strip('"') for line in lines if line.startswith("appVersion:"))


@pytest.fixture(scope="session")
def new_release(place: Place, request: pytest.FixtureRequest) -> Iterator[Callable[..., Release]]:
    """Installs a release in a namespace of its own; all of them are gone at the end of the run."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(*words: str, **how: Any) -> Release:
            release = stack.enter_context(releases.namespace())
            request.session.stash.setdefault(RELEASES, []).append(release)
            release.install(*words, **how)
            release.prepare()
            return release

        yield make


@pytest.fixture(scope="session")
def release(new_release: Callable[..., Release]) -> Release:
    """The release that the tests share; each has TaskQueues of its own in it."""
    return new_release("--set", releases.PAIRS)
