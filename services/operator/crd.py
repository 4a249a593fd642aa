"""The custom resource definition of TaskQueue, made from the models of `spec` and `answer`.

`python -m services.operator.crd` writes both copies of it for the charts, and the table in docs/taskqueue.md; a
contract test sees that they are in step.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from services.operator.answer import TaskQueueStatus
from services.operator.schema import structural
from services.operator.spec import GROUP, KIND, MOST_NAME, PLURAL, VERSION, TaskQueueSpec

Json = dict[str, Any]
ALONE: Final = "deploy/helm/taskflow-crds/templates/taskqueues.yaml"
IN_CHART: Final = "deploy/helm/taskflow/templates/crds/taskqueues.yaml"
PAGE: Final = "docs/taskqueue.md"
BEGIN: Final = "<!-- begin: python -m services.operator.crd -->"
END: Final = "<!-- end -->"
_HEAD: Final = (
    "# Made by `python -m services.operator.crd` from services/operator/spec.py and answer.py: change those.\n"
)
_SUMMARY: Final = "A queue of tasks and the workers that run them."
_NAME: Final = "self.metadata.name"
_QUEUE: Final = "(has({0}.spec.queueName) ? {0}.spec.queueName : {0}.metadata.name)"

COLUMNS: Final = (
    ("Phase", "string", ".status.phase", 0, "A summary."),
    ("Ready", "string", ".status.ready", 0, "Pods that take tasks, of those that are ordered."),
    ("Depth", "integer", ".status.depth.queued", 0, "Tasks that wait for a worker."),
    ("Running", "integer", ".status.depth.running", 0, "Tasks that run."),
    ("Oldest", "integer", ".status.oldestQueuedSeconds", 0, "Seconds that the oldest of them waits."),
    ("Desired", "integer", ".status.desiredReplicas", 0, "Pods that are wanted now."),
    ("Max", "integer", ".spec.scaling.maxReplicas", 0, "Most pods."),
    ("Reason", "string", ".status.reason", 0, "Why there are so many pods, or what is wrong."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since it was made."),
    ("Mode", "string", ".spec.scaling.mode", 1, "What decides the number of pods."),
    ("Arrival/s", "number", ".status.arrivalPerSecond", 1, "Tasks that arrive in a second."),
    ("Finish/s", "number", ".status.finishPerSecond", 1, "Tasks that end in a second."),
    ("Paused", "boolean", ".spec.paused", 1, "Whether spec.paused stops the queue."),
)


def rules() -> list[dict[str, str]]:
    """Return the rules that look at more than one part of a TaskQueue."""
    return [
        {
            "rule": f"size({_NAME}) <= {MOST_NAME}",
            "message": f"metadata.name may have at most {MOST_NAME} characters",
            # `format`, because the server reckons the text that `string` makes of a number as endless.
            "messageExpression": f"'metadata.name has %d characters; at most {MOST_NAME} are allowed, because pods are "
            f"named after it'.format([size({_NAME})])",
            "reason": "FieldValueInvalid",
        },
        {
            "rule": f"!{_NAME}.contains('.')",
            "message": "metadata.name must not have dots, because pods are named after it",
            "reason": "FieldValueInvalid",
        },
        {
            "rule": f"{_QUEUE.format('self')} == {_QUEUE.format('oldSelf')}",
            "message": "spec.queueName cannot be changed; make another TaskQueue",
            "messageExpression": f"'spec.queueName cannot be changed from ' + {_QUEUE.format('oldSelf')} + ' to ' + "
            f"{_QUEUE.format('self')} + '; make another TaskQueue'",
            "reason": "FieldValueForbidden",
        },
    ]


def schema() -> Json:
    """Return the schema of a whole TaskQueue."""
    spec = structural(TaskQueueSpec, defaults=True)
    status = structural(TaskQueueStatus, defaults=False)
    return {
        "description": _SUMMARY,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"{GROUP}/{VERSION}", "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            # A bound, from which the server reckons what the rules about the name may cost.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": {**spec, "default": {}},
            "status": status,
        },
        "x-kubernetes-validations": rules(),
    }


def definition() -> Json:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            # `helm uninstall` must not take every TaskQueue of the cluster with it.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "taskflow"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["tq"],
                # Not `all`: kubectl delete all --all would take the queues.
                "categories": ["taskflow"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.scaling.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "selectableFields": [{"jsonPath": ".spec.queueName"}, {"jsonPath": ".status.phase"}],
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            "description": text,
                            **({"priority": priority} if priority else {}),
                        }
                        for name, kind, path, priority, text in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }


def body() -> str:
    """Return the definition as YAML."""
    return yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)


def files() -> dict[str, str]:
    """Return what each generated file holds, by its path in the repository."""
    chart = "{{- if .Values.crds.install }}\n" + body() + "{{- end }}\n"
    return {ALONE: _HEAD + body(), IN_CHART: _HEAD + chart}


def table() -> str:
    """Return the table of all fields of the spec, for docs/taskqueue.md."""
    return "\n".join(
        ["| Field | Default | Meaning |", "|---|---|---|", *_rows("spec", structural(TaskQueueSpec, defaults=True))]
    )


def page(text: str) -> str:
    """Return a page whose generated part is the table as it is now. Raises ValueError when it has no such part."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs a part between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _rows(path: str, of: Json) -> list[str]:
    made = []
    for name, field in of["properties"].items():
        if "properties" in field:
            made += _rows(f"{path}.{name}", field)
            continue
        default = field.get("default")
        shown = "" if default is None else f"`{yaml.safe_dump(default, default_flow_style=True).split(chr(10))[0]}`"
        made.append(f"| `{path}.{name}` | {shown} | {field['description']} |")
    return made


def main(root: Path) -> None:
    """Write all that is generated below the repository's root."""
    for name, text in files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    where = root / PAGE
    where.write_text(page(where.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write("".join(f"{name}\n" for name in (*files(), PAGE)))


if __name__ == "__main__":
    main(Path(__file__).parents[2])
