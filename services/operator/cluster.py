"""The Kubernetes API as the operator uses it: plain JSON in and out, every request with a bound.

Refusals come as the errors of `core.errors`, with the API server's own words. Nothing here retries: the loop comes
round again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from core.errors import Conflict, Forbidden, Invalid, NotFound, TaskFlowError, Throttled, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
MANAGER: Final = "taskflow-operator"  # owns what it applies
SCALER: Final = "taskflow-scaler"  # owns `replicas` alone, so that no apply ever resets it
REQUEST_SECONDS: Final = 10.0
_PAGE: Final = 500
_MERGE, _APPLY, _PLAIN = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
_REFUSALS: Final[dict[int, type[TaskFlowError]]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: NotFound,
    409: Conflict,
    410: Conflict,  # the page that was asked for is too old: ask from the start
    413: Invalid,
    422: Invalid,
}
# The server says so with a 500, although it is the manifest's fault: a field that does not exist, or of a wrong type.
_UNTYPED: Final = "failed to create typed patch object"


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource by its place in the API, e.g. ("apis/apps/v1", "deployments")."""

    api: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        parts = [self.api, *(["namespaces", namespace] if namespace else []), self.plural, name, subresource]
        return "/" + "/".join(part for part in parts if part)


TASKQUEUES: Final = Kind("apis/taskflow.dev/v1alpha1", "taskqueues")
DEPLOYMENTS: Final = Kind("apis/apps/v1", "deployments")
REPLICASETS: Final = Kind("apis/apps/v1", "replicasets")
PODS: Final = Kind("api/v1", "pods")
BUDGETS: Final = Kind("apis/policy/v1", "poddisruptionbudgets")
EVENTS: Final = Kind("api/v1", "events")
AUTOSCALERS: Final = Kind("apis/autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECTS: Final = Kind("apis/keda.sh/v1alpha1", "scaledobjects")


class Cluster:
    """One client of the API server. `api` is an open `kubernetes.aio` ApiClient (see core.kube)."""

    def __init__(self, api: Any, *, seconds: float = REQUEST_SECONDS) -> None:
        self._api = api
        self._seconds = seconds

    async def get(self, kind: Kind, namespace: str, name: str, subresource: str = "") -> Json:
        """Read one object as it is now. Raises NotFound."""
        return await self._ask("GET", kind.path(namespace, name, subresource))

    async def items(self, kind: Kind, namespace: str | None, *, selector: str = "") -> list[Json]:
        """List a kind in a namespace, or in all with None. Raises NotFound when the kind is not served."""
        try:
            return await self._pages(kind, namespace, selector)
        except Conflict:  # 410: the list grew too old between two pages
            return await self._pages(kind, namespace, selector)

    async def create(self, kind: Kind, namespace: str, body: Mapping[str, Any]) -> Json:
        """Make an object. Raises Conflict when it is there."""
        return await self._ask("POST", kind.path(namespace), body, kind=_PLAIN, query={"fieldManager": MANAGER})

    async def merge(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        subresource: str = "",
        *,
        manager: str = MANAGER,
    ) -> Json:
        """Patch some fields. A `metadata.resourceVersion` in the patch is a precondition: Conflict when it is old."""
        path = kind.path(namespace, name, subresource)
        return await self._ask("PATCH", path, patch, kind=_MERGE, query={"fieldManager": manager})

    async def apply(
        self, kind: Kind, manifest: Mapping[str, Any], *, dry: bool = False, manager: str = MANAGER
    ) -> Json:
        """Apply on the server's side: what the manifest names is ours, the rest stays as others want it.

        `dry` only asks whether the server would take it. Raises Invalid or Forbidden with the server's reasons.
        """
        there = manifest["metadata"]
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry else {})}
        path = kind.path(there["namespace"], there["name"])
        return await self._ask("PATCH", path, manifest, kind=_APPLY, query=query)

    async def _pages(self, kind: Kind, namespace: str | None, selector: str) -> list[Json]:
        found: list[Json] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            page = await self._ask("GET", kind.path(namespace), query=query)
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        kind: str = _PLAIN,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        import aiohttp  # noqa: PLC0415 - it comes with the client, which takes seconds to import

        headers = {"Accept": "application/json", "Content-Type": kind}
        try:
            async with asyncio.timeout(self._seconds):
                request = await self._api.param_serialize(
                    method, path, {}, list((query or {}).items()), headers, body, auth_settings=["BearerToken"]
                )
                answer = await self._api.call_api(*request, _request_timeout=self._seconds)
                text = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as away:
            raise Unavailable(f"the Kubernetes API did not answer: {type(away).__name__}: {away}") from away
        return _answer(answer.status, text, answer.headers)


def _answer(status: int, text: bytes, headers: Mapping[str, str]) -> Json:
    try:
        said = json.loads(text) if text else {}
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    if 200 <= status <= 299:  # noqa: PLR2004 - HTTP's success
        return said
    words = str(said.get("message") or f"the Kubernetes API answered {status}")
    if status in _REFUSALS:
        raise _REFUSALS[status](words)
    if words.startswith(_UNTYPED):
        raise Invalid(words)
    wait = _seconds(headers.get("Retry-After", ""))
    if status == 429:  # noqa: PLR2004 - HTTP's too many requests
        raise Throttled(words, retry_after=wait)
    raise Unavailable(words, retry_after=wait)


def _seconds(text: str) -> float:
    return min(float(text), 60.0) if text.isdigit() else 1.0
