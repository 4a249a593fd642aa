"""Which namespaces the operator serves, and for which release."""

from __future__ import annotations

from core import kube
from core.config import settings
from core.errors import SettingError


def own_release() -> str:
    """Return the release that this operator is of, as namespace/name.

    TASKFLOW_RELEASE says it. Operators without Helm are of one release when they stand for the same Lease.
    """
    return settings.release or f"{settings.namespace or kube.namespace()}/{settings.lease_name}"


def watched() -> tuple[str | None, ...]:
    """Return the namespaces of TASKFLOW_WATCH_NAMESPACES; `(None,)` for all of them.

    Raises SettingError when it names none and TASKFLOW_NAMESPACE is not set either.
    """
    named: tuple[str, ...] = settings.watch_namespaces
    if "*" in named:
        return (None,)
    if named:
        return tuple(dict.fromkeys(named))
    if not settings.namespace:
        raise SettingError(
            "TASKFLOW_NAMESPACE is not set", fix="set it, or TASKFLOW_WATCH_NAMESPACES", field="namespace"
        )
    return (settings.namespace,)
