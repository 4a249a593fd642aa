"""A pod template laid over another, in the manner of Kubernetes' strategic merge. Knows shapes, no meaning."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_DEEP: Final = {"containers": "name", "initContainers": "name"}
"""Lists whose entries are merged, and the key that tells them apart."""
_WHOLE: Final = {
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
}
"""Lists whose entries replace one another. Half of one entry and half of another would be neither."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid over `base`, neither of which is changed.

    Objects are merged field by field, null takes a field away, the lists named above are merged by key; any other
    list or value replaces what was there.
    """
    made = dict(base)
    for name, value in over.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _field(name, made.get(name), value)
    return made


def _field(name: str, before: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return merge(before if isinstance(before, Mapping) else {}, value)
    if name in _DEEP and isinstance(value, Sequence):
        return _entries(before, value, _DEEP[name], deep=True)
    if name in _WHOLE and isinstance(value, Sequence):
        return _entries(before, value, _WHOLE[name], deep=False)
    return value


def _entries(before: Any, over: Sequence[Any], key: str, *, deep: bool) -> list[Any]:
    made = {entry.get(key): entry for entry in before or ()}
    for entry in over:
        there = made.get(entry.get(key))
        made[entry.get(key)] = merge(there or {}, entry) if deep else entry
    return list(made.values())
