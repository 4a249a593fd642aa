"""The values of a system to rely on: your stores, two of everything, and walls between them."""

from __future__ import annotations

from typing import Any

from tests.chart import helm

FOUND = "production-values.yaml"
ROLES = ("api", "scheduler", "operator")


def deployment(role: str, found: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return helm.one(found or helm.of_file(FOUND), "Deployment", f"taskflow-{role}")


def main(pod: dict[str, Any]) -> dict[str, Any]:
    return helm.variables(pod["spec"]["containers"][0])


def test_no_store_and_no_secret_is_made() -> None:
    kinds = {each["kind"] for each in helm.of_file(FOUND)}
    assert kinds & {"Secret", "StatefulSet", "PersistentVolumeClaim"} == set()
    components = {each["metadata"].get("labels", {}).get("app.kubernetes.io/component") for each in helm.of_file(FOUND)}
    assert components & {"postgres", "redis-high", "redis-low"} == set()


def test_stores_are_reached_by_secrets_over_tls() -> None:
    for pod in (deployment("api")["spec"]["template"], helm.worker_pod(helm.of_file(FOUND))):
        variables = main(pod)
        assert variables["DATABASE_URL"]["secretKeyRef"]["name"] == "taskflow-database"
        assert variables["REDIS_HOST_HIGH"] == "redis-high.example.com"
        assert variables["REDIS_PORT_LOW"] == "6380"
        assert variables["REDIS_TLS_HIGH"] == variables["REDIS_TLS_LOW"] == "on"
        assert variables["REDIS_PASSWORD_LOW"]["secretKeyRef"]["name"] == "taskflow-redis"
        assert variables["SSL_CERT_FILE"] == variables["PGSSLROOTCERT"] == "/etc/taskflow/ca/ca.crt"
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "ca")
        assert volume["secret"]["secretName"] == "stores-ca"
        for container in helm.containers(pod):
            assert {"name": "ca", "mountPath": "/etc/taskflow/ca", "readOnly": True} in container["volumeMounts"]


def test_the_operator_does_not_know_redis() -> None:
    for file in helm.VALUES:
        found = helm.of_file(file)
        name = "tf-operator" if file == "wide-values.yaml" else "taskflow-operator"
        pod = helm.one(found, "Deployment", name)["spec"]["template"]
        assert [variable for variable in main(pod) if variable.startswith("REDIS")] == []


def test_a_redis_without_users_gets_neither_name_nor_password() -> None:
    pod = helm.one(helm.of_file("wide-values.yaml"), "Deployment", "tf-api")["spec"]["template"]
    assert [name for name in main(pod) if name.startswith(("REDIS_USERNAME", "REDIS_PASSWORD"))] == []


def test_two_of_everything_with_a_budget_each_spread_over_nodes_and_zones() -> None:
    found = helm.of_file(FOUND)
    for role in ROLES:
        made = deployment(role)
        labels = made["spec"]["template"]["metadata"]["labels"]
        budget = helm.one(found, "PodDisruptionBudget", f"taskflow-{role}")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        assert made["spec"].get("replicas", 2) == 2
        spread = made["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}
        assert all(each["labelSelector"]["matchLabels"].items() <= labels.items() for each in spread)


def test_one_pod_gets_no_budget() -> None:
    assert "PodDisruptionBudget" not in {each["kind"] for each in helm.of_file(None)}


def test_who_scales_the_api_is_its_autoscaler_alone() -> None:
    scaler = helm.one(helm.of_file(FOUND), "HorizontalPodAutoscaler", "taskflow-api")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment("api")["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    assert "replicas" not in deployment("api")["spec"]  # an upgrade would set it back
    assert deployment("api", helm.of_file(None))["spec"]["replicas"] == 1


def test_metrics_of_all_four_are_found_by_one_monitor() -> None:
    found = helm.of_file(FOUND)
    monitor = helm.one(found, "ServiceMonitor", "taskflow")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [each for each in found if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()]
    assert {each["metadata"]["name"] for each in services} == {
        "taskflow-api", "taskflow-scheduler-metrics", "taskflow-operator-metrics", "taskflow-worker-metrics",
    }  # fmt: skip
    ports = {port["name"] for each in services for port in each["spec"]["ports"]}
    assert ports == {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
    for role in ("scheduler", "operator"):
        assert main(deployment(role)["spec"]["template"])["TASKFLOW_METRICS_PORT"] == "8081"


def test_the_ingress_shows_clients_what_is_theirs_and_no_more() -> None:
    (rule,) = helm.one(helm.of_file(FOUND), "Ingress", "taskflow-api")["spec"]["rules"]
    assert rule["host"] == "tasks.example.com"
    assert [path["path"] for path in rule["http"]["paths"]] == ["/v1", "/openapi.json"]
    assert main(deployment("api")["spec"]["template"])["TASKFLOW_TRUSTED_PROXIES"] == "10.0.0.0/8"


def policies(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    made = (each for each in found if each["kind"] == "NetworkPolicy")
    return {each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"] for each in made}


def test_every_component_has_a_policy_for_both_ways() -> None:
    for file in (FOUND, "wide-values.yaml", "namespaces-values.yaml"):
        found = helm.of_file(file)
        made = policies(found)
        bundled = {
            each["metadata"]["labels"]["app.kubernetes.io/component"] for each in found if each["kind"] == "StatefulSet"
        }
        assert made.keys() >= {"api", "scheduler", "operator", "worker", "migrate", *bundled}
        assert {tuple(spec["policyTypes"]) for spec in made.values()} == {("Ingress", "Egress")}


def test_workers_reach_stores_and_what_is_named_and_nobody_reaches_them() -> None:
    made = policies(helm.of_file(FOUND))
    worker = made["worker"]
    to = [peer["ipBlock"]["cidr"] for rule in worker["egress"] for peer in rule.get("to", [])]
    assert to == ["10.20.0.0/16", "10.21.0.0/16", "10.30.0.0/16"]
    assert [rule["from"] for rule in worker["ingress"]] == [
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    ]
    kubernetes = {"protocol": "TCP", "port": 6443}
    speakers = {
        role for role, spec in made.items() if any(kubernetes in rule.get("ports", []) for rule in spec["egress"])
    }
    assert speakers == {"scheduler", "operator"}


def test_the_bundled_stores_are_reached_by_those_who_use_them_alone() -> None:
    made = policies(helm.of_file("namespaces-values.yaml"))

    def reached_by(store: str) -> dict[str, bool]:
        (rule,) = made[store]["ingress"]
        return {
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: "namespaceSelector" in peer
            for peer in rule["from"]
        }

    # Workers of other namespaces come from there.
    everyone = {"api": False, "scheduler": False, "worker": True, "operator": False, "migrate": False}
    assert reached_by("postgres") == everyone
    assert reached_by("redis-low") == {"api": False, "scheduler": False, "worker": True}
    assert made["postgres"]["egress"] == []


def test_additions_arrive_where_they_belong() -> None:
    found = helm.of_file("wide-values.yaml")
    api = helm.one(found, "Deployment", "tf-api")["spec"]["template"]
    assert api["metadata"]["annotations"]["example.com/note"] == "api"
    assert api["metadata"]["labels"]["example.com/team"] == "tasks"
    assert main(api)["EXAMPLE"] == "1"
    assert api["spec"]["tolerations"][0]["key"] == "tasks"
    assert api["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    workers = helm.worker_pod(found)
    assert workers["spec"]["nodeSelector"] == {"example.com/pool": "tasks"}
    assert workers["spec"]["containers"][0]["image"].startswith("registry.example.com/tools/taskflow-worker@sha256:")
    assert workers["metadata"]["annotations"]["example.com/note"] == "worker"
    assert helm.one(found, "ConfigMap", "taskflow-extra")
    assert helm.one(found, "ConfigMap", "tf-extra-text")
    assert "topologySpreadConstraints" not in helm.one(found, "Deployment", "tf-scheduler")["spec"]["template"]["spec"]
    operator = main(helm.one(found, "Deployment", "tf-operator")["spec"]["template"])
    assert (operator["TASKFLOW_WORKER_SECRETS"], operator["TASKFLOW_WORKER_CLAIMS"]) == ("mail,tasks-*", "models")
    views = [each["metadata"]["name"] for each in found if each["kind"] == "ClusterRole"]
    assert sorted(views) == ["tasks-tf-edit", "tasks-tf-operator", "tasks-tf-view"]


def test_wherever_the_worker_runs_it_finds_the_stores() -> None:
    """In another namespace a short name would lead nowhere."""
    variables = main(helm.worker_pod(helm.of_file(None)))
    assert variables["REDIS_HOST_HIGH"] == f"taskflow-redis-high.{helm.NAMESPACE}.svc"
    secret = helm.one(helm.of_file(None), "Secret", "taskflow-database")["stringData"]
    assert f"@taskflow-postgres.{helm.NAMESPACE}.svc:5432/taskflow" in secret["worker-url"]
