"""What each ServiceAccount may do equals a checked-in list. TASKFLOW_GOLDEN=write writes it anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kube import command
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release

GOLDEN = Path(__file__).parent / "golden"
ACCOUNTS = ("api", "scheduler", "operator", "migrate", "worker")


def rights(release: Release, account: str, namespace: str) -> set[str]:
    """The lines of `kubectl auth can-i --list`, spaces made one."""
    user = f"--as=system:serviceaccount:{release.namespace}:{account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{release.namespace}", "system:authenticated"]
    words = ["auth", "can-i", "--list", "--no-headers", user, *(f"--as-group={group}" for group in groups)]
    lines = command("kubectl", "-n", namespace, *words).splitlines()
    return {" ".join(line.split()) for line in lines}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_may_do_what_is_written_down_and_no_more(release: Release, account: str) -> None:
    # What anybody who has logged in may do differs from cluster to cluster, and is not ours.
    anybody = rights(release, "nobody", release.namespace)
    found = sorted(rights(release, f"{NAME}-{account}", release.namespace) - anybody)
    file = GOLDEN / f"{account}.txt"
    if os.environ.get("TASKFLOW_GOLDEN") == "write":
        file.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    assert found == file.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_may_do_nothing_in_another_namespace(release: Release, account: str) -> None:
    assert rights(release, f"{NAME}-{account}", "default") == rights(release, "nobody", "default")


def test_a_worker_has_no_token_no_secret_key_and_no_disk(release: Release) -> None:
    with release.queue("bare", scaling={"minReplicas": 1, "maxReplicas": 1}) as queue:
        [worker] = release.workers(queue, 1)
        environment = release.kube.inside(worker, "env")
        assert "SECRET_KEY" not in environment
        assert "owner" not in environment
        said = release.kube.refused("exec", worker, "--", "ls", "/var/run/secrets/kubernetes.io")
        assert "No such file" in said
        assert "Read-only file system" in release.kube.refused("exec", worker, "--", "touch", "/x")
        assert release.kube.inside(worker, "id", "-u").strip() == "65532"
