"""Install, upgrade, rollback, uninstall: who waits for what, what rolls when, and what stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart import helm

every_file = pytest.mark.parametrize("file", helm.VALUES)
PYTHON = "/opt/taskflow/bin/python"  # in a worker's image the user's own comes first on PATH


def job(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in found if each["kind"] == "Job" and "-migrate-" in each["metadata"]["name"])


@every_file
def test_whatever_uses_the_schema_waits_for_it(file: str | None) -> None:
    for title, pod in helm.pods(helm.of_file(file)).items():
        main = helm.variables(pod["spec"]["containers"][0])
        waits = [each for each in pod["spec"].get("initContainers", []) if each["name"] == "wait-for-migrations"]
        assert len(waits) == ("DATABASE_URL" in main and "migrate" not in title), title
        for waiter in waits:
            assert waiter["command"] == [PYTHON, "-I", "-u", "-m", "core.migrate", "--wait"]
            assert helm.variables(waiter)["DATABASE_URL"] == main["DATABASE_URL"]


@every_file
def test_migrations_are_a_plain_job_of_the_owner(file: str | None) -> None:
    made = job(helm.of_file(file))
    assert "helm.sh/hook" not in made["metadata"].get("annotations", {})
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["command"] == [PYTHON, "-I", "-u", "-m", "core.migrate"]
    assert helm.variables(container).keys() >= {
        "DATABASE_URL", "TASKFLOW_ADMIN_USERNAME", "TASKFLOW_ADMIN_PASSWORD", "TASKFLOW_ADMIN_API_KEY",
    }  # fmt: skip
    assert made["spec"]["activeDeadlineSeconds"] > 0


def test_a_new_image_is_a_new_job_and_the_same_is_the_same() -> None:
    names = {job(helm.render(**values))["metadata"]["name"] for values in ({}, {"api": {"replicas": 2}})}
    assert len(names) == 1
    for changed in ({"image": {"tag": "2"}}, {"postgres": {"image": "postgres:16"}}):
        assert job(helm.render(**changed))["metadata"]["name"] not in names


@every_file
def test_only_what_never_changes_selects(file: str | None) -> None:
    """A Deployment's selector cannot be changed: a version in it would break the first upgrade."""
    for each in helm.of_file(file):
        if each["kind"] in {"Deployment", "StatefulSet"}:
            assert each["spec"]["selector"]["matchLabels"].keys() == {
                f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")
            }


def test_a_new_worker_pod_restarts_the_operator_that_reads_it() -> None:
    def operators(**values: Any) -> dict[str, Any]:
        return dict(helm.one(helm.render(**values), "Deployment", "taskflow-operator")["spec"]["template"])

    assert operators() == operators(api={"replicas": 2})
    assert operators() != operators(worker={"env": [{"name": "A", "value": "b"}]})


def test_the_api_drains_before_it_is_killed() -> None:
    spec = helm.one(helm.of_file(None), "Deployment", "taskflow-api")["spec"]
    pod = spec["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause >= 5  # routes to the pod go first
    assert pod["terminationGracePeriodSeconds"] >= pause + 25 + 10
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_data_and_generated_secrets_outlive_the_release_and_redis_passwords_need_not() -> None:
    kept = {
        each["metadata"]["name"]
        for each in helm.of_file(None)
        if each["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        and each["kind"] != "CustomResourceDefinition"
    }
    assert kept == {"taskflow-keys", "taskflow-admin", "taskflow-database"}
    store = helm.one(helm.of_file(None), "StatefulSet", "taskflow-postgres")
    assert "persistentVolumeClaimRetentionPolicy" not in store["spec"]
    deleted = helm.render(postgres={"storage": {"whenDeleted": "Delete"}})
    policy = helm.one(deleted, "StatefulSet", "taskflow-postgres")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy["whenDeleted"] == "Delete"


@every_file
def test_the_farewell_cannot_hold_an_uninstall_up(file: str | None) -> None:
    (hook,) = (each for each in helm.of_file(file) if each["metadata"]["name"].endswith("-farewell"))
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert "before-hook-creation" in hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert hook["spec"]["activeDeadlineSeconds"] <= 120
    assert hook["spec"]["backoffLimit"] <= 2
    (container,) = hook["spec"]["template"]["spec"]["containers"]
    assert container["command"][1:5] == ["-I", "-u", "-m", "services.operator.release"]
    operator = container["command"][-1]
    assert helm.one(helm.of_file(file), "Deployment", operator)
    assert "DATABASE_URL" not in helm.variables(container)  # it works when the stores are gone


def test_hooks_are_rendered_only_where_helm_speaks_with_a_cluster() -> None:
    """`helm template | kubectl apply` would start them at once: the farewell stops the operator and all workers."""

    def hooks(found: list[dict[str, Any]]) -> set[str]:
        return {helm.title(each) for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})}

    with_cluster, without = helm.of_file(None), helm.render()
    assert hooks(with_cluster) == {"Job taskflow-farewell", "Pod taskflow-test"}
    assert hooks(without) == set()
    left_out = {helm.title(each) for each in with_cluster} - {helm.title(each) for each in without}
    secrets = {f"Secret taskflow-{name}" for name in ("keys", "admin", "database", "redis")}
    assert left_out == hooks(with_cluster) | secrets, "a live release would get new passwords"
    assert helm.pods(without).items() <= helm.pods(with_cluster).items(), "and no pod of it may roll"
    offline = {helm.title(each) for each in helm.render(generateSecretsOffline=True)}
    assert secrets <= offline


def test_the_default_queue_is_the_operators_to_make() -> None:
    found = helm.of_file(None)
    assert "TaskQueue" not in {each["kind"] for each in found}  # its definition would have to be served before
    container = helm.one(found, "Deployment", "taskflow-operator")["spec"]["template"]["spec"]["containers"][0]
    assert '"minReplicas":1' in helm.variables(container)["TASKFLOW_DEFAULT_QUEUE"]
    without = helm.render(defaultQueue={"enabled": False})
    container = helm.one(without, "Deployment", "taskflow-operator")["spec"]["template"]["spec"]["containers"][0]
    assert "TASKFLOW_DEFAULT_QUEUE" not in helm.variables(container)
