"""A door to the Kubernetes API: who we are there, and one bounded request.

The client library takes seconds to import, so it is imported when a door is opened, and beside the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.config import settings
from core.errors import SettingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Json = dict[str, Any]
REQUEST_SECONDS: Final = 4.0
_UNANSWERED: Final = frozenset({401, 403, 408, 429})  # it may be otherwise in a moment: rights and tokens are renewed
_FIRST_FAILURE: Final = 500
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@asynccontextmanager
async def client() -> AsyncIterator[Any]:
    """Yield an open `kubernetes.aio.client.ApiClient`: by the pod's ServiceAccount, else by KUBECONFIG.

    The token of a ServiceAccount is read again each minute, because the kubelet renews it. Raises SettingError when
    there is neither.
    """
    library = await asyncio.to_thread(importlib.import_module, "kubernetes.aio.client")
    config = await asyncio.to_thread(importlib.import_module, "kubernetes.aio.config")
    configuration = library.Configuration()
    try:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as nowhere:
        message = f"no Kubernetes can be reached from here: {nowhere}"
        raise SettingError(message, fix="run it in a pod with a ServiceAccount, or set KUBECONFIG") from nowhere
    configuration.retries = None  # who asks comes round again, and knows better when
    async with library.ApiClient(configuration) as api:
        yield api


def namespace() -> str:
    """Return the namespace that this process belongs to. Raises SettingError when nothing says it."""
    if settings.namespace:
        return settings.namespace
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        message = "TASKFLOW_NAMESPACE is not set"
        raise SettingError(message, fix="name the namespace of this process", field="namespace") from None


async def ask(
    api: Any, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = REQUEST_SECONDS
) -> tuple[int, Json]:
    """Send one request; return the answer's status and JSON, refusals such as 404 and 409 included.

    Raises Unavailable when the server does not answer within `seconds`, cannot, or does not let us in just now.
    """
    import aiohttp  # noqa: PLC0415 - it comes with the client

    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    try:
        async with asyncio.timeout(seconds):
            request = await api.param_serialize(method, path, {}, [], headers, body, auth_settings=["BearerToken"])
            answer = await api.call_api(*request, _request_timeout=seconds)
            text = await answer.read()
            read = json.loads(text) if text else {}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as away:
        message = f"the Kubernetes API did not answer: {type(away).__name__}: {away}"
        raise Unavailable(message) from away
    if answer.status >= _FIRST_FAILURE or answer.status in _UNANSWERED or not isinstance(read, dict):
        said = read.get("message") if isinstance(read, dict) else None
        message = f"the Kubernetes API answered {answer.status} to {method} {path}: {said or 'nothing that helps'}"
        raise Unavailable(message)
    return answer.status, read
