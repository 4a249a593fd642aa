"""Values: every one is documented, described and bounded, and a wrong one is refused with a sentence."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.chart import helm

DEFAULTS = yaml.safe_load((helm.CHART / "values.yaml").read_text())
SCHEMA = json.loads((helm.CHART / "values.schema.json").read_text())
OPEN = {
    "nodeSelector",
    "affinity",
    "spec",
    "annotations",
    "podAnnotations",
    "podLabels",
    "labels",
    "requests",
    "limits",
}


def refusal(**values: Any) -> str:
    with pytest.raises(helm.RefusedError) as refused:
        helm.render(**values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"apis": {}}, "apis"),
        ({"api": {"replica": 2}}, "replica"),
        ({"api": {"replicas": "two"}}, "/api/replicas|api.replicas"),
        ({"api": {"replicas": -1}}, "/api/replicas|api.replicas"),
        ({"api": {"service": {"port": 70000}}}, "port"),
        ({"api": {"resources": {"requests": {"cpu": "much"}}}}, "cpu"),
        ({"api": {"trustedProxies": ["everywhere"]}}, "trustedProxies"),
        ({"settings": {"registration": "sometimes"}}, "open"),
        ({"settings": {"logLevel": "loud"}}, "debug"),
        ({"image": {"digests": {"api": "latest"}}}, "digests"),
        ({"image": {"pullPolicy": "Sometimes"}}, "IfNotPresent"),
        ({"operator": {"pollSeconds": 0}}, "pollSeconds"),
        ({"operator": {"watchNamespaces": ["Team A"]}}, "watchNamespaces"),
        ({"postgres": {"storage": {"size": "big"}}}, "size"),
        ({"postgres": {"storage": {"whenDeleted": "Maybe"}}}, "Retain"),
        ({"redisServer": {"maxMemory": "lots"}}, "maxMemory"),
        ({"networkPolicy": {"apiFrom": [{}]}}, "apiFrom"),
        ({"monitoring": {"serviceMonitor": {"interval": "often"}}}, "interval"),
        ({"worker": {"env": [{"name": "not a name"}]}}, "env"),
        ({"tests": {"seconds": 0}}, "seconds"),
        ({"extraObjects": [1]}, "extraObjects"),
    ],
)
def test_an_unknown_or_mistyped_value_is_named(values: dict[str, Any], says: str) -> None:
    assert re.search(says, refusal(**values))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"database": {"bundled": False}}, "database.existingSecret must name a Secret"),
        ({"database": {"existingSecret": "mine"}}, "set database.bundled=false as well"),
        ({"redis": {"bundled": False}}, "redis.high.host must name a server"),
        ({"redis": {"bundled": False, "high": {"host": "redis"}}}, "redis.low.host must name a server"),
        ({"redis": {"existingSecret": "mine"}}, "set redis.bundled=false as well"),
        ({"redis": {"users": {"worker": ""}}}, "needs a name for each of redis.users"),
        ({"operator": {"watchAllNamespaces": True, "watchNamespaces": ["a"]}}, "leave operator.watchNamespaces out"),
        ({"api": {"ingress": {"enabled": True}}}, "must name at least one host"),
        ({"api": {"autoscaling": {"minReplicas": 9}}}, "greater than api.autoscaling.maxReplicas"),
    ],
)
def test_values_that_do_not_fit_together_are_told_apart(values: dict[str, Any], says: str) -> None:
    assert says in refusal(**values)


def walk(schema: dict[str, Any], values: Any, path: str = "") -> list[str]:
    """Every object of the schema that lets unknown names in, and every value that it does not know."""
    schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if not isinstance(values, dict) or path.rpartition(".")[2] in OPEN:
        return []
    wrong = [] if schema.get("additionalProperties") is False else [f"{path} is open"]
    for name, value in values.items():
        known = schema.get("properties", {}).get(name)
        wrong += walk(known, value, f"{path}.{name}") if known else [f"{path}.{name} is unknown"]
    return wrong


def test_the_schema_knows_every_value_and_no_other() -> None:
    assert walk(SCHEMA, DEFAULTS) == []


def test_every_value_of_the_schema_has_a_default_to_read_about() -> None:
    def missing(schema: dict[str, Any], values: Any, path: str) -> list[str]:
        named = {} if "$ref" in schema else schema.get("properties", {})
        absent = [f"{path}.{name}" for name in named if name not in values]
        return absent + [
            m for name, sub in named.items() if name in values for m in missing(sub, values[name], f"{path}.{name}")
        ]

    assert missing(SCHEMA, {**DEFAULTS, "global": {}}, "") == []


def test_every_part_of_the_schema_says_what_it_is() -> None:
    def silent(schema: dict[str, Any], path: str) -> list[str]:
        named = schema.get("properties", {})
        own = (
            [path]
            if path and schema.get("type") == "object" and "properties" in schema and not schema.get("description")
            else []
        )
        return own + [s for name, sub in named.items() for s in silent(sub, f"{path}.{name}")]

    assert silent(SCHEMA, "") == []


def test_the_smallest_cluster_holds_the_test_values() -> None:
    """Two cores must hold twenty workers beside the system: no request of a test is above 25m."""
    for title, pod in helm.pods(helm.of_file("cluster-values.yaml")).items():
        for container in helm.containers(pod):
            cpu = container["resources"]["requests"]["cpu"]
            assert cpu.endswith("m"), title
            assert int(cpu.removesuffix("m")) <= 25, title


def test_every_container_says_what_it_needs_and_may_take() -> None:
    for title, pod in helm.pods(helm.of_file(None)).items():
        for container in helm.containers(pod):
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, title
            # A limit of CPU would slow a busy process down without protecting anybody.
            assert container["resources"]["limits"].keys() == {"memory"}, title
