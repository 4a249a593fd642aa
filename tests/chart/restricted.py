"""Pod Security "restricted", as a list of what a pod does against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def against(pod: dict[str, Any]) -> list[str]:
    """Return what a pod's spec does that the profile forbids."""
    spec = pod["spec"]
    return [*_of_pod(spec), *(f"{name}: {what}" for name, what in _of_containers(spec))]


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    for shared in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(shared):
            yield shared
    for volume in spec.get("volumes", []):
        if foreign := set(volume) - {"name"} - _VOLUMES:
            yield f"a volume of type {foreign}"
    context = spec.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"
    for forbidden in ("seLinuxOptions", "windowsOptions"):
        if forbidden in context:
            yield forbidden


def _of_containers(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    pod = spec.get("securityContext", {})
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        if both.get("runAsNonRoot") is not True:
            yield container["name"], "may run as root"
        if both.get("runAsUser") == 0:
            yield container["name"], "runs as root"
        if both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            yield container["name"], "no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False:
            yield container["name"], "may gain privileges"
        if own.get("privileged") or own.get("procMount", "Default") != "Default":
            yield container["name"], "is privileged"
        if "ALL" not in own.get("capabilities", {}).get("drop", []):
            yield container["name"], "keeps capabilities"
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            yield container["name"], "adds capabilities"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield container["name"], "takes a port of the host"
