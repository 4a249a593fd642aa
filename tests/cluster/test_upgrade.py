"""`helm upgrade` to newer code with a newer schema, and `helm rollback`, under load: old and new side by side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import version
from tests.cluster.load import Load
from tests.cluster.place import REGISTRY, ROLES, ROOT
from tests.cluster.release import CHART, NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.place import Place
    from tests.cluster.release import Release

NEXT = "0.2.0-next"
VERSIONS = "/opt/taskflow/lib/python3.11/site-packages/core/migrations/versions"
LABELS = '''"""A status and an event that older code has never heard of."""

from alembic import op

revision, down_revision, branch_labels, depends_on = "9001", "{head}", None, None


def upgrade() -> None:
    op.execute("alter type task_status add value if not exists 'ARCHIVED'")
    op.execute("alter type event_type add value if not exists 'ARCHIVED'")


def downgrade() -> None:
    pass
'''
COLUMN = '''"""A column that newer code has."""

from alembic import op

revision, down_revision, branch_labels, depends_on = "9002", "9001", None, None


def upgrade() -> None:
    op.execute("set lock_timeout = '5s'")
    op.execute("alter table tasks add column colour text not null default 'blue'")


def downgrade() -> None:
    op.execute("alter table tasks drop column colour")
'''


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_an_upgrade_and_a_rollback_under_load_lose_nothing(
    release: Release, place: Place, tmp_path: Path, say: Callable[[str], None]
) -> None:
    if not place.own:
        pytest.skip("builds images and loads them into the cluster of ../shared/cluster")
    build(place, tmp_path)
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    with release.queue("upgrade", scaling=scaling, drain=20) as queue:
        release.workers(queue, 2)
        with Load(release, queue, clients=4, pace=0.4, type="cluster_tasks:nap", payload={"seconds": 1.0}) as load:
            load.more(20)
            began = time.monotonic()
            release.helm(
                "upgrade", NAME, str(CHART), "--reuse-values", "--set", f"image.tag={NEXT}", "--wait", within=400
            )
            everywhere(release, queue, NEXT)
            seconds = time.monotonic() - began
            say(f"helm upgrade to {NEXT}: all pods are new after {seconds:.0f} s, the schema is {schema(release)}")
            load.more(20)
            # Somebody uses what is new, and the old code meets it after the rollback.
            [later] = release.submit(queue, [{"value": 0}], scheduled_at="2030-01-01T00:00:00Z")
            release.execute(f"update tasks set status = 'ARCHIVED' where id = '{later}'")
            began = time.monotonic()
            release.helm("rollback", NAME, "--wait", within=400)
            everywhere(release, queue, version())
            seconds = time.monotonic() - began
            say(f"helm rollback: all pods are old after {seconds:.0f} s, the schema is {schema(release)}")
            load.more(20)
            answers = release.get(f"/v1/tasks/{later}", "/v1/tasks?limit=5", "/v1/queues")
            assert [status for status, _ in answers] == [200, 200, 200], answers
            assert release.statuses([later]) == {later: "ARCHIVED"}
            release.execute(f"delete from tasks where id = '{later}'")
        verdict = load.verify()
        load.patient()
        load.one_retry()
    assert verdict.charged == 0
    say(f"{len(load.answered)} tasks: lost 0, wrong 0; repeated {dict(verdict.causes)}")
    say(f"what clients met: {dict(load.ways)}; the slowest answer took {load.slowest:.1f} s")


def build(place: Place, folder: Path) -> None:
    """Make newer images: the old ones with two more migrations."""
    head = max(file.name for file in (ROOT / "alembic/versions").glob("0*.py")).partition("_")[0]
    (folder / "9001_labels.py").write_text(LABELS.format(head=head), encoding="utf-8")
    (folder / "9002_column.py").write_text(COLUMN, encoding="utf-8")
    for role in ROLES:
        text = f"FROM {REGISTRY}/taskflow-{role}:{version()}\nCOPY 9001_labels.py 9002_column.py {VERSIONS}/\n"
        (folder / "Dockerfile").write_text(text, encoding="utf-8")
        place.build(f"{REGISTRY}/taskflow-{role}:{NEXT}", folder / "Dockerfile", folder)


def everywhere(release: Release, queue: str, tag: str) -> None:
    """Wait until every pod of the product runs the images of one version."""

    def all_of_it() -> bool:
        pods = [pod for pod in release.kube.pods() if "job-name" not in pod["metadata"]["labels"]]
        images = {one["image"] for pod in pods for one in pod["spec"]["containers"] if REGISTRY in one["image"]}
        return all(image.endswith(f":{tag}") for image in images)

    release.kube.until(all_of_it, 240, every=1)
    release.kube.until(lambda: migrated(release), 60, every=1)
    release.settled()
    release.workers(queue, 2)


def migrated(release: Release) -> bool:
    """Whether the migration Job of the version that is installed has done its work."""
    [job] = release.kube.all("jobs", "app.kubernetes.io/component=migrate")
    return bool(job["status"].get("succeeded"))


def schema(release: Release) -> str:
    return str(release.one("select version_num from alembic_version"))
