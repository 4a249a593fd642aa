"""Secrets are made up once: an upgrade and a new install take up what is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from core.auth import split_key
from tests.chart import helm
from tests.chart.looked_up import cluster, stored

if TYPE_CHECKING:
    from pathlib import Path


def secrets(found: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {each["metadata"]["name"]: each["stringData"] for each in found if each["kind"] == "Secret"}


def test_the_notes_name_objects_that_there_are(tmp_path: Path) -> None:
    """What they say is run on a real cluster by tests/cluster; this is about every release's name."""
    release = "a-long-name-for-a-release-of-this"
    with cluster(tmp_path, []) as kubeconfig:
        said = helm.run(
            *("install", release, str(helm.CHART), "--namespace", helm.NAMESPACE),
            *("--dry-run=server", "--disable-openapi-validation"),
            env={"KUBECONFIG": kubeconfig, "HELM_CACHE_HOME": str(tmp_path)},
        ).partition("NOTES:")[2]
    found = {helm.title(each).lower() for each in helm.render(release=release, generateSecretsOffline=True)}
    named = re.findall(r"(deployment|service)/(\S+)", said) + re.findall(r"get (secret) (\S+)", said)
    assert len(named) == 3
    assert {f"{kind} {name}" for kind, name in named} <= found
    assert f"helm -n {helm.NAMESPACE} test {release}" in said
    assert re.findall(r"kubectl (?!-n tasks )", said) == []


def upgraded(there: list[dict[str, Any]], **values: Any) -> list[dict[str, Any]]:
    """What an upgrade renders where these Secrets are."""
    return helm.objects(helm.in_cluster(secrets=there, values=values))


def test_an_upgrade_keeps_what_was_made_up() -> None:
    first = helm.of_file(None)
    again = upgraded([stored(each) for each in first if each["kind"] == "Secret"])
    assert secrets(again) == secrets(first)
    # And nothing rolls: pods are as they were.
    assert helm.pods(again) == helm.pods(first)


def test_what_is_missing_is_added_and_nothing_else_is_changed() -> None:
    first = helm.of_file(None)
    there = [
        stored(each) for each in first if each["kind"] == "Secret" and each["metadata"]["name"] != "taskflow-admin"
    ]
    database = next(each for each in there if each["metadata"]["name"] == "taskflow-database")
    del database["data"]["operator-password"]  # made by an older chart that had no such role
    before, after = secrets(first), secrets(upgraded(there))
    assert after["taskflow-keys"] == before["taskflow-keys"]
    assert after["taskflow-admin"] != before["taskflow-admin"]
    changed = {key for key, text in after["taskflow-database"].items() if text != before["taskflow-database"][key]}
    assert changed == {"operator-password", "operator-url"}


def test_a_changed_secret_of_yours_rolls_who_uses_it() -> None:
    def secret(name: str, text: str) -> dict[str, Any]:
        return stored({"metadata": {"name": name, "namespace": helm.NAMESPACE}, "stringData": {"any": text}})

    values: dict[str, Any] = {
        "database": {"bundled": False, "existingSecret": "mine"},
        "keys": {"existingSecret": "signing"},
    }
    before = helm.pods(upgraded([secret("mine", "a"), secret("signing", "a")], **values))
    assert before == helm.pods(upgraded([secret("mine", "a"), secret("signing", "a")], **values))
    rolled = helm.pods(upgraded([secret("mine", "a"), secret("signing", "b")], **values))
    assert {title for title in before if before[title] != rolled[title]} == {"Deployment taskflow-api"}
    rolled = helm.pods(upgraded([secret("mine", "b"), secret("signing", "a")], **values))
    same = {title for title in before if title in rolled and before[title] == rolled[title]}
    assert {title for title in same if "redis" not in title} == {"Job taskflow-farewell", "Pod taskflow-test"}
    assert not [title for title in rolled if "-migrate-" in title and title in before]  # the new one may be empty


def test_what_is_made_up_is_taken_by_who_reads_it() -> None:
    made = secrets(helm.of_file(None))
    assert len(made["taskflow-keys"]["secret-key"]) >= 32
    assert split_key(made["taskflow-admin"]["api-key"]) is not None
    assert made["taskflow-admin"]["username"] == "admin"
    for role in ("api", "scheduler", "worker", "operator"):
        assert re.fullmatch(
            rf"postgresql://taskflow_{role}:[A-Za-z0-9]{{32}}@taskflow-postgres\.tasks\.svc:5432/taskflow",
            made["taskflow-database"][f"{role}-url"],
        )
    assert made["taskflow-database"]["owner-url"].startswith("postgresql://taskflow:")
