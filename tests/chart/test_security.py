"""Nobody is root, nobody has a token or a secret that he does not need, and no secret stands in a command line."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from tests.chart import helm, restricted

every_file = pytest.mark.parametrize("file", helm.VALUES)
WITH_TOKEN = {"Deployment scheduler", "Deployment operator", "Job farewell"}


def short(title: str) -> str:
    """A title without the release's part of the name."""
    kind, _, name = title.partition(" ")
    return f"{kind} {name.removeprefix('taskflow-').removeprefix('tf-')}".split("migrate")[0].strip()


@every_file
def test_every_pod_passes_pod_security_restricted(file: str | None) -> None:
    assert {
        title: found for title, pod in helm.pods(helm.of_file(file)).items() if (found := restricted.against(pod))
    } == {}


def test_the_profile_is_not_blind() -> None:
    spec = {"hostNetwork": True, "volumes": [{"name": "x", "hostPath": {"path": "/"}}], "containers": [{"name": "c"}]}
    assert len(restricted.against({"spec": spec})) == 6


@every_file
def test_every_root_file_system_is_read_only(file: str | None) -> None:
    for title, pod in helm.pods(helm.of_file(file)).items():
        for container in helm.containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], title


@every_file
def test_who_does_not_speak_with_kubernetes_has_no_token(file: str | None) -> None:
    found = helm.of_file(file)
    accounts = {each["metadata"]["name"]: each for each in found if each["kind"] == "ServiceAccount"}
    for title, pod in helm.pods(found).items():
        mounted = pod["spec"]["automountServiceAccountToken"]
        assert mounted is (short(title) in WITH_TOKEN), title
        if "serviceAccountName" in pod["spec"]:
            assert accounts[pod["spec"]["serviceAccountName"]]["automountServiceAccountToken"] is mounted
    bound = {subject["name"] for each in found for subject in each.get("subjects", [])}
    assert {short(f"ServiceAccount {name}") for name in bound} == {
        "ServiceAccount scheduler",
        "ServiceAccount operator",
    }


@every_file
def test_variables_named_after_services_reach_no_pod(file: str | None) -> None:
    """One of them, TASKFLOW_API_PORT, would be taken for a setting."""
    assert {pod["spec"].get("enableServiceLinks") for pod in helm.pods(helm.of_file(file)).values()} == {False}


@every_file
def test_only_the_api_has_the_key_that_signs_tokens(file: str | None) -> None:
    holders = {
        title
        for title, pod in helm.pods(helm.of_file(file)).items()
        for container in helm.containers(pod)
        if "SECRET_KEY" in helm.variables(container) or "-keys" in str(pod["spec"].get("volumes"))
    }
    assert {short(title) for title in holders} == {"Deployment api"}


@every_file
def test_each_service_has_a_database_role_and_a_redis_user_of_its_own(file: str | None) -> None:
    urls: dict[str, set[str]] = {}
    passwords: dict[str, set[str]] = {}
    for title, pod in helm.pods(helm.of_file(file)).items():
        for container in helm.containers(pod):
            for name, value in helm.variables(container).items():
                if name == "DATABASE_URL":
                    urls.setdefault(short(title), set()).add(value["secretKeyRef"]["key"])
                elif name.startswith("REDIS_PASSWORD_"):
                    passwords.setdefault(short(title), set()).add(value["secretKeyRef"]["key"])
    assert urls == {
        "Job": {"owner-url"},
        "Deployment api": {"api-url"},
        "Deployment scheduler": {"scheduler-url"},
        "Deployment operator": {"operator-url"},
        "workers": {"worker-url"},
    }
    if file != "wide-values.yaml":  # a Redis without users
        assert passwords == {
            "Deployment api": {"api-password"},
            "Deployment scheduler": {"scheduler-password"},
            "workers": {"worker-password"},
        }


def secret_texts(found: list[dict[str, Any]]) -> set[str]:
    """Every generated value, and whatever else Secrets hold that is long enough to be one."""
    values = [each["stringData"] for each in found if each["kind"] == "Secret"]
    return {text for data in values for text in data.values() if len(text) > 10}


@every_file
def test_no_secret_stands_outside_of_secrets(file: str | None) -> None:
    found = helm.of_file(file)
    others = yaml.safe_dump_all([each for each in found if each["kind"] != "Secret"])
    assert [text for text in secret_texts(found) if text in others] == []


def test_secrets_are_long_and_never_alike() -> None:
    first, second = (helm.objects(helm.in_cluster()) for _ in range(2))
    assert len(secret_texts(first)) > 10
    assert secret_texts(first) & secret_texts(second) == set()


def test_what_only_a_cluster_role_can_do_is_asked_for_only_when_told() -> None:
    kinds = {each["kind"] for each in helm.of_file(None)}
    assert kinds & {"ClusterRole", "ClusterRoleBinding"} == set()
    wide = helm.render(operator={"watchAllNamespaces": True})
    (role,) = (each for each in wide if each["kind"] == "ClusterRole")
    (narrow,) = (each for each in helm.of_file(None) if helm.title(each) == "Role taskflow-operator")
    assert role["rules"] == narrow["rules"]
    assert not [each for each in wide if helm.title(each) == "Role taskflow-operator"]
    assert helm.NAMESPACE in role["metadata"]["name"]  # two releases of one name must not take it from each other


def test_named_namespaces_get_a_role_each() -> None:
    roles = {
        each["metadata"]["namespace"]
        for each in helm.of_file("namespaces-values.yaml")
        if helm.title(each) == "RoleBinding taskflow-operator"
    }
    assert roles == {helm.NAMESPACE, "team-a", "team-b"}
    operator = helm.one(helm.of_file("namespaces-values.yaml"), "Deployment", "taskflow-operator")
    watched = helm.variables(operator["spec"]["template"]["spec"]["containers"][0])["TASKFLOW_WATCH_NAMESPACES"]
    assert watched == f"{helm.NAMESPACE},team-a,team-b"


@every_file
def test_no_role_reads_secrets_deletes_or_takes_everything(file: str | None) -> None:
    rules = [
        rule
        for each in helm.of_file(file)
        if each["kind"] in {"Role", "ClusterRole"} and not each["metadata"]["name"].endswith(("-view", "-edit"))
        for rule in each["rules"]
    ]
    for rule in rules:
        granted = list(itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"]))
        assert not [grant for grant in granted if "*" in grant]
        assert not [
            grant for grant in granted if grant[1] in {"secrets", "configmaps", "pods/exec"} or "delete" in grant[2]
        ]


def test_without_a_default_queue_no_right_to_make_one() -> None:
    def verbs(found: list[dict[str, Any]]) -> list[str]:
        role = helm.one(found, "Role", "taskflow-operator")
        return next(list(rule["verbs"]) for rule in role["rules"] if rule["resources"] == ["taskqueues"])

    assert "create" in verbs(helm.of_file(None))
    assert "create" not in verbs(helm.render(defaultQueue={"enabled": False}))
