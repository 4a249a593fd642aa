"""A small API server of Kubernetes over HTTP: only what the operator uses, but that as the real one does it.

Objects have resourceVersions and generations, writes with an old resourceVersion get 409, `status` and `scale` are
apart, a dry run changes nothing, an apply forgets what its manager no longer names, deleted objects wait for their
finalizers, what they own goes with them, and watches replay from a resourceVersion. It checks no schema beyond what is
listed here.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"
KINDS = {
    "taskqueues": ("apis/taskflow.dev/v1alpha1", "TaskQueue"),
    "deployments": ("apis/apps/v1", "Deployment"),
    "replicasets": ("apis/apps/v1", "ReplicaSet"),
    "pods": ("api/v1", "Pod"),
    "events": ("api/v1", "Event"),
    "namespaces": ("api/v1", "Namespace"),
    "poddisruptionbudgets": ("apis/policy/v1", "PodDisruptionBudget"),
    "horizontalpodautoscalers": ("apis/autoscaling/v2", "HorizontalPodAutoscaler"),
    "leases": ("apis/coordination.k8s.io/v1", "Lease"),
    "customresourcedefinitions": ("apis/apiextensions.k8s.io/v1", "CustomResourceDefinition"),
}
GLOBAL = {"namespaces", "customresourcedefinitions"}
Key = tuple[str, str, str]  # plural, namespace, name


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Fault:
    """Answers for the next requests that match `METHOD path`."""

    matches: re.Pattern[str]
    status: int
    message: str
    times: int
    headers: dict[str, str]


@dataclass
class ApiServer:
    objects: dict[Key, Json] = field(default_factory=dict)
    log: list[tuple[int, str, str, Json]] = field(default_factory=list)  # resourceVersion, change, plural, object
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, path with query
    faults: list[Fault] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    # ── what a test does ────────────────────────────────────────────────────────────────────────────────

    def fail(self, matches: str, status: int, message: str = "no", times: int = 1, **headers: str) -> None:
        self.faults.append(Fault(re.compile(matches), status, message, times, headers))

    def get(self, plural: str, namespace: str, name: str) -> Json:
        return copy.deepcopy(self.objects[plural, namespace, name])

    def all(self, plural: str) -> list[Json]:
        return [copy.deepcopy(found) for (kind, _, _), found in self.objects.items() if kind == plural]

    def put(self, plural: str, body: Json) -> Json:
        """Store an object as somebody else does who writes all of it, status included."""
        body = copy.deepcopy(body)
        about = body["metadata"]
        key = (plural, about.get("namespace", ""), about["name"])
        before = self.objects.get(key)
        about.setdefault("uid", before["metadata"]["uid"] if before else str(uuid4()))
        about.setdefault("creationTimestamp", CREATED)
        about["generation"] = self._generation(before, body)
        return self._store(key, body, "MODIFIED" if before else "ADDED")

    def change(self, plural: str, namespace: str, name: str, patch: Json) -> Json:
        """Merge a patch into an object, status included."""
        return self.put(plural, merged(self.objects[plural, namespace, name], patch))

    def delete(self, plural: str, namespace: str, name: str) -> None:
        key = (plural, namespace, name)
        found = copy.deepcopy(self.objects[key])
        if found["metadata"].get("finalizers"):
            found["metadata"]["deletionTimestamp"] = CREATED
            found["metadata"]["generation"] += 1
            self._store(key, found, "MODIFIED")
        else:
            self._remove(key)

    # ── storage ─────────────────────────────────────────────────────────────────────────────────────────

    def _generation(self, before: Json | None, body: Json) -> int:
        if before is None:
            return 1
        now = int(before["metadata"].get("generation", 1))
        return now + (before.get("spec") != body.get("spec"))

    def _store(self, key: Key, body: Json, change: str) -> Json:
        version = next(self._versions)
        body["metadata"]["resourceVersion"] = str(version)
        body["apiVersion"] = KINDS[key[0]][0].removeprefix("apis/").removeprefix("api/")
        body["kind"] = KINDS[key[0]][1]
        self.objects[key] = body
        self._tell(version, change, key[0], body)
        about = body["metadata"]
        if about.get("deletionTimestamp") and not about.get("finalizers") and key[0] != "pods":
            self._remove(key)
        return copy.deepcopy(body)

    def _remove(self, key: Key) -> None:
        gone = self.objects.pop(key, None)
        if gone is None:
            return
        self._tell(next(self._versions), "DELETED", key[0], gone)
        uid = gone["metadata"]["uid"]
        for other, found in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or []):
                self._remove(other)

    def _tell(self, version: int, change: str, plural: str, body: Json) -> None:
        self.log.append((version, change, plural, copy.deepcopy(body)))

        async def notify() -> None:
            async with self.news:
                self.news.notify_all()

        telling = asyncio.get_running_loop().create_task(notify())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/")
        self.requests.append((request.method, request.path_qs))
        for fault in self.faults:
            if fault.times and fault.matches.search(f"{request.method} {request.path_qs}"):
                fault.times -= 1
                return self._refusal(fault.status, fault.message, fault.headers)
        if (found := _discovery(path)) is not None:
            return web.json_response(found)
        try:
            return await self._resource(request, path)
        except Refused as refused:
            return self._refusal(refused.status, refused.message, {})

    def _refusal(self, status: int, message: str, headers: dict[str, str]) -> web.Response:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message}
        return web.json_response(body, status=status, headers=headers)

    async def _resource(self, request: web.Request, path: str) -> web.StreamResponse:
        matched = re.fullmatch(
            r"(api/v1|apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([a-z]+)(?:/([^/]+))?(?:/([a-z]+))?", path
        )
        if not matched or KINDS.get(matched[3], ("",))[0] != matched[1]:
            raise Refused(404, "the server could not find the requested resource")
        namespace, plural, name, sub = matched[2] or "", matched[3], matched[4], matched[5] or ""
        if request.method == "GET" and not name:
            if request.query.get("watch") == "true":
                return await self._watch(request, plural, namespace)
            return web.json_response(self._list(plural, namespace, request.query.get("labelSelector", "")))
        if request.method == "GET":
            return web.json_response(self._found(plural, namespace, name, sub))
        body = json.loads(await request.read() or b"{}")
        if request.method == "POST":
            return web.json_response(self._create(plural, namespace, body), status=201)
        if request.method == "PUT":
            return web.json_response(self._patch((plural, namespace, name), sub, body))
        if request.method == "PATCH":
            kind = request.headers["Content-Type"]
            dry = request.query.get("dryRun") == "All"
            if kind == "application/apply-patch+yaml":
                manager = request.query["fieldManager"]
                return web.json_response(self._apply(plural, namespace, name, body, manager, dry=dry))
            assert kind == "application/merge-patch+json", kind
            manager = request.query.get("fieldManager", "unknown")
            return web.json_response(self._patch((plural, namespace, name), sub, body, manager=manager))
        raise Refused(405, "method not allowed")

    def _found(self, plural: str, namespace: str, name: str, sub: str) -> Json:
        found = self.objects.get((plural, namespace, name))
        if found is None:
            raise Refused(404, f'{plural} "{name}" not found')
        return _scale_of(found) if sub == "scale" else copy.deepcopy(found)

    def _list(self, plural: str, namespace: str, selector: str) -> Json:
        items = [
            copy.deepcopy(found)
            for (kind, where, _), found in self.objects.items()
            if kind == plural and namespace in {"", where} and _selected(found, selector)
        ]
        version = self.log[-1][0] if self.log else 99
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}, "items": items}

    def _create(self, plural: str, namespace: str, body: Json) -> Json:
        body["metadata"]["namespace"] = namespace
        if (plural, namespace, body["metadata"]["name"]) in self.objects:
            raise Refused(409, "already exists")
        return self.put(plural, body)

    def _patch(self, key: Key, sub: str, patch: Json, *, manager: str = "") -> Json:
        plural = key[0]
        before = self._found(*key, "")
        asked = (patch.get("metadata") or {}).get("resourceVersion")
        if asked is not None and asked != before["metadata"]["resourceVersion"]:
            raise Refused(409, "the object has been modified; please apply your changes to the latest version")
        if sub == "scale":
            after = merged(before, {"spec": {"replicas": patch["spec"]["replicas"]}})
            _own(after, manager, "Update", {"spec.replicas"})
        elif sub == "status":
            after = merged(before, {"status": patch["status"]})
        else:
            after = merged(
                before, patch if plural in {"pods", "leases"} else {**patch, "status": before.get("status", {})}
            )
        after["metadata"]["generation"] = self._generation(before, after)
        stored = after if after == before else self._store(key, after, "MODIFIED")
        return _scale_of(stored) if sub == "scale" else copy.deepcopy(stored)

    def _apply(self, plural: str, namespace: str, name: str, body: Json, manager: str, *, dry: bool) -> Json:
        key = (plural, namespace, name)
        before = copy.deepcopy(self.objects.get(key))
        start: Json = before or {
            "metadata": {"name": name, "namespace": namespace, "uid": str(uuid4()), "creationTimestamp": CREATED}
        }
        named = set(_leaves({part: value for part, value in body.items() if part in {"spec", "metadata"}}))
        managed = start["metadata"].get("managedFields") or []
        mine = {
            leaf
            for entry in managed
            if entry["manager"] == manager and entry["operation"] == "Apply"
            for leaf in entry["leaves"]
        }
        others = {
            leaf
            for entry in managed
            if (entry["manager"], entry["operation"]) != (manager, "Apply")
            for leaf in entry["leaves"]
        }
        after = merged(start, {part: value for part, value in body.items() if part in {"spec", "metadata"}})
        for leaf in mine - named - others:
            _drop(after, leaf.split("."))
        _own(after, manager, "Apply", named)
        if plural == "deployments":
            after["spec"].setdefault("replicas", 1)
            _check_deployment(name, before, after)
        after["metadata"]["generation"] = self._generation(before, after)
        if dry or after == before:
            return after
        return self._store(key, after, "MODIFIED" if before else "ADDED")

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        since, selector = int(request.query.get("resourceVersion") or 0), request.query.get("labelSelector", "")
        place = 0
        while True:
            for version, change, kind, body in self.log[place:]:
                seen = version > since and kind == plural and namespace in {"", body["metadata"].get("namespace", "")}
                if seen and _selected(body, selector):
                    await answer.write(json.dumps({"type": change, "object": body}).encode() + b"\n")
                place += 1
            async with self.news:
                if place == len(self.log):
                    await self.news.wait()


# ── the rules of the API, one by one ────────────────────────────────────────────────────────────────────


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return copy.deepcopy(made)


def _leaves(value: Any, path: str = "") -> list[str]:
    """Paths of an object's fields; a list is one field. Names with dots are spelled with a slash-free stand-in."""
    if not isinstance(value, dict) or not value:
        return [path]
    return [
        leaf for name, inner in value.items() for leaf in _leaves(inner, f"{path}.{name.replace('.', '~')}".lstrip("."))
    ]


def _drop(target: Json, path: list[str]) -> None:
    name = path[0].replace("~", ".")
    if len(path) == 1:
        target.pop(name, None)
    elif isinstance(target.get(name), dict):
        _drop(target[name], path[1:])


def _own(body: Json, manager: str, operation: str, leaves: set[str]) -> None:
    entries = [
        entry
        for entry in body["metadata"].get("managedFields") or []
        if (entry["manager"], entry["operation"]) != (manager, operation)
    ]
    fields = {"f:spec": {"f:replicas": {}}} if "spec.replicas" in leaves else {}
    body["metadata"]["managedFields"] = [
        *entries,
        {"manager": manager, "operation": operation, "leaves": sorted(leaves), "fieldsV1": fields},
    ]


def _check_deployment(name: str, before: Json | None, after: Json) -> None:
    pod = after["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod.get("volumes") or []}
    for place, container in enumerate(pod.get("containers") or []):
        path = f'Deployment.apps "{name}" is invalid: spec.template.spec.containers[{place}]'
        if not container.get("image"):
            raise Refused(422, f"{path}.image: Required value")
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                raise Refused(422, f'{path}.volumeMounts[0].name: Not found: "{mount["name"]}"')
    if before and before["spec"]["selector"] != after["spec"]["selector"]:
        raise Refused(422, "spec.selector: Invalid value: field is immutable")


def _scale_of(found: Json) -> Json:
    about = {name: found["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
    return {"kind": "Scale", "metadata": about, "spec": {"replicas": found["spec"].get("replicas", 1)}}


def _selected(found: Json, selector: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    wanted = [part.split("=", 1) for part in selector.split(",") if part]
    return all(labels.get(name.rstrip("=")) == value.lstrip("=") for name, value in wanted)


def _discovery(path: str) -> Json | None:
    groups = sorted({place for place, _ in KINDS.values() if place.startswith("apis/")})
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        listed = [place.split("/")[1:] for place in groups]
        return {
            "kind": "APIGroupList",
            "groups": [
                {"name": group, "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                 "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version}}
                for group, version in listed
            ],
        }  # fmt: skip
    if path == "api/v1" or path in groups:
        return {
            "kind": "APIResourceList",
            "resources": [
                {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": plural not in GLOBAL,
                 "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"]}
                for plural, (place, kind) in KINDS.items() if place == path
            ],
        }  # fmt: skip
    return {"major": "1", "minor": "34"} if path == "version" else None
