"""What the cluster looked like when the watches spoke last: small copies of TaskQueues, Deployments and Pods.

Good for seeing that there is something to do. Whatever interrupts work is decided anew on what the API server says at
that moment (see loop.py), because a watch may be late, or lost.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from services.operator.cluster import DEPLOYMENTS, PODS, TASKQUEUES, Json, Kind
from services.operator.objects import (
    DELETION_COST,
    HASH_LABEL,
    MANAGED_BY,
    QUEUE_LABEL,
    RELEASE_ANNOTATION,
    label_of,
    surge_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Key = tuple[str, str]
"""Namespace and name."""
KINDS: Final = (TASKQUEUES, DEPLOYMENTS, PODS)
DIGEST: Final = "taskflow.digest"  # of a Deployment's spec without replicas: tells drift from scaling


class Mirror:
    """The copies, and who wants to hear of changes. Used in one event loop only."""

    def __init__(self, heard: Callable[[Kind, Json, bool], None] = lambda *_: None) -> None:
        """Take `heard(kind, copy, gone)`, which is called for each change that matters."""
        self._things: dict[Kind, dict[Key, Json]] = {kind: {} for kind in KINDS}
        self._touched: dict[Kind, set[Key]] = {kind: set() for kind in KINDS}
        self._heard = heard

    def put(self, kind: Kind, body: Json, *, gone: bool = False) -> None:
        """Take one object as a watch, or an answer to a write, brought it."""
        copy = slim(kind, body)
        key = key_of(copy)
        self._touched[kind].add(key)
        self._set(kind, key, copy, gone=gone)

    def listing(self, kind: Kind, namespace: str | None) -> None:
        """Say that a namespace (None: all) is being listed: what is put from now on is newer than that list."""
        self._touched[kind] = {key for key in self._touched[kind] if not _within(key, namespace)}

    def replace(self, kind: Kind, bodies: Iterable[Json], namespace: str | None) -> None:
        """Take the full list of a namespace (None: all): what is not in it, and was not put since, is gone."""
        copies = {key_of(copy): copy for copy in (slim(kind, body) for body in bodies)}
        touched = self._touched[kind]
        there = [key for key in self._things[kind] if _within(key, namespace)]
        for key in [key for key in there if key not in copies and key not in touched]:
            self._set(kind, key, self._things[kind][key], gone=True)
        for key, copy in copies.items():
            if key not in touched:
                self._set(kind, key, copy, gone=False)

    def get(self, kind: Kind, key: Key) -> Json | None:
        return self._things[kind].get(key)

    def all(self, kind: Kind) -> list[Json]:
        return list(self._things[kind].values())

    def pods(self) -> dict[Key, list[Json]]:
        """All pods, by the namespace and name of their TaskQueue."""
        found: dict[Key, list[Json]] = {}
        for pod in self._things[PODS].values():
            name = pod["metadata"]["labels"].get(QUEUE_LABEL)
            if name:
                found.setdefault((pod["metadata"]["namespace"], name), []).append(pod)
        return found

    def _set(self, kind: Kind, key: Key, copy: Json, *, gone: bool) -> None:
        before = self._things[kind].get(key)
        if gone:
            self._things[kind].pop(key, None)
        else:
            self._things[kind][key] = copy
        if gone or before is None or _matters(kind, before) != _matters(kind, copy):
            self._heard(kind, copy, gone)


def key_of(thing: Json) -> Key:
    """Return namespace and name of an object."""
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _within(key: Key, namespace: str | None) -> bool:
    return namespace is None or key[0] == namespace


def _matters(kind: Kind, copy: Json) -> Json:
    """What of a copy is news. Our own writes of status come back as well, and must not wake the loop."""
    about = {name: value for name, value in copy["metadata"].items() if name != "resourceVersion"}
    return {"metadata": about} if kind is TASKQUEUES else {**copy, "metadata": about}


def slim(kind: Kind, body: Json) -> Json:
    """Return the part of an object that the operator looks at. A copy of a copy is the same."""
    about = body["metadata"]
    metadata = {
        name: about[name]
        for name in (
            "name",
            "namespace",
            "uid",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
            "ownerReferences",
        )
        if name in about
    }
    if kind is TASKQUEUES:
        metadata["finalizers"] = about.get("finalizers") or []
        named = (about.get("annotations") or {}).get(RELEASE_ANNOTATION)
        metadata["annotations"] = {RELEASE_ANNOTATION: named} if named else {}
        return {"metadata": metadata, "spec": body.get("spec") or {}, "status": body.get("status") or {}}
    labels, notes = about.get("labels") or {}, about.get("annotations") or {}
    metadata["labels"] = {name: labels[name] for name in (QUEUE_LABEL, MANAGED_BY, HASH_LABEL) if name in labels}
    if kind is DEPLOYMENTS:
        return _deployment(body, metadata, notes)
    return _pod(body, metadata, notes)


def _deployment(body: Json, metadata: Json, notes: Json) -> Json:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    metadata["annotations"] = {name: text for name, text in notes.items() if name.startswith("taskflow.dev/")}
    conditions = [one for one in status.get("conditions") or [] if one.get("type") == "ReplicaFailure"]
    counts = {
        name: status[name]
        for name in ("replicas", "updatedReplicas", "readyReplicas", "observedGeneration")
        if name in status
    }
    return {
        "metadata": metadata,
        "spec": {
            "replicas": spec.get("replicas"),
            "strategy": {"rollingUpdate": {"maxSurge": surge_of(body)}},
            "template": {"metadata": {"labels": {HASH_LABEL: label_of(body)}}},
        },
        "status": {**counts, "conditions": conditions},
        DIGEST: body.get(DIGEST) or digest(spec),
    }


def digest(spec: Json) -> str:
    """Tell one Deployment's spec from another, replicas aside."""
    rest = {name: value for name, value in spec.items() if name != "replicas"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def _pod(body: Json, metadata: Json, notes: Json) -> Json:
    status = body.get("status") or {}
    metadata["creationTimestamp"] = body["metadata"].get("creationTimestamp")
    metadata["annotations"] = {DELETION_COST: notes[DELETION_COST]} if DELETION_COST in notes else {}
    kept = {name: status[name] for name in ("phase", "reason", "message") if name in status}
    kept["conditions"] = [
        {name: one[name] for name in ("type", "status", "reason", "message") if name in one}
        for one in status.get("conditions") or []
    ]
    for group in ("containerStatuses", "initContainerStatuses"):
        kept[group] = [
            {name: one[name] for name in ("name", "state", "lastState", "restartCount") if name in one}
            for one in status.get(group) or []
        ]
    return {"metadata": metadata, "spec": {"nodeName": (body.get("spec") or {}).get("nodeName")}, "status": kept}
