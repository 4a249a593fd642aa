"""What people type at kubectl works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.kube import command
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release

EIGHT_LINES = """\
apiVersion: taskflow.dev/v1alpha1
kind: TaskQueue
metadata:
  name: habits
spec:
  scaling:
    minReplicas: 1
    maxReplicas: 3
"""


def test_an_eight_line_taskqueue_works_and_kubectl_knows_its_ways(release: Release) -> None:
    kube = release.kube
    kube("apply", "-f", "-", given=EIGHT_LINES)
    kube("wait", "--for=condition=Ready", "tq/habits", "--timeout=90s", within=100)
    release.workers("habits", 1)
    # The chart's worker image holds the examples.
    ids = release.submit("habits", [{"name": "habit"}], "examples.hello:hello")
    assert set(release.ended(ids).values()) == {"COMPLETED"}

    header, line = kube("get", "tq", "habits").splitlines()
    for column in ("NAME", "PHASE", "READY", "DESIRED", "REASON", "AGE"):
        assert column in header, header
    assert "1/1" in line, line
    assert "habits" in kube("get", "taskflow")
    assert "habits" in kube("get", "taskqueues")

    kube("scale", "tq/habits", "--replicas=3")
    release.workers("habits", 3)
    assert kube.one("tq/habits")["spec"]["scaling"]["replicas"] == 3
    kube("wait", "--for=condition=Ready", "tq/habits", "--timeout=60s", within=70)
    events = [event for event in kube.all("events") if event["involvedObject"]["name"] == "habits"]
    assert [event for event in events if event["reason"] == "ScaledUp"], events

    kube("delete", "tq", "habits", "--timeout=90s", within=100)
    kube.until(lambda: not kube.one(f"deployment/{NAME}-habits"), 30)


def test_explain_has_a_sentence_for_every_field() -> None:
    said = command("kubectl", "explain", "tq.spec.scaling")
    assert "minReplicas" in said
    assert "<no description>" not in command("kubectl", "explain", "tq", "--recursive=false")
    assert "stabilizationSeconds" in command("kubectl", "explain", "tq.spec", "--recursive")
