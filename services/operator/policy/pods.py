"""The pod itself: what it shares with its node, who it is, and which volumes it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.operator.objects import DELETION_COST
from services.operator.policy import containers

if TYPE_CHECKING:
    from services.operator.policy.walk import Walk

_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC")
_SAFE_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_VOLUMES: Final = frozenset({"emptyDir", "configMap", "downwardAPI", "ephemeral"})
_KNOWN_VOLUMES: Final = "emptyDir, configMap, downwardAPI, projected, secret, persistentVolumeClaim or ephemeral"
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP: Final = "seccomp.security.alpha.kubernetes.io/"


def template(walk: Walk, of: Any) -> None:
    """Look at a PodTemplateSpec."""
    if not isinstance(of, dict):
        walk.refuse("must be an object")
        return
    for name in sorted(of.keys() - {"metadata", "spec"}, key=str):
        walk.at(f".{name}").refuse("is no field of a pod template, which has metadata and spec")
    _metadata(*walk.enter(of, "metadata"))
    _pod(*walk.enter(of, "spec"))


def _metadata(walk: Walk, of: dict[str, Any]) -> None:
    for name in sorted(of.keys() - {"labels", "annotations"}, key=str):
        walk.at(f".{name}").refuse("is not taken over; a template has labels and annotations")
    there, notes = walk.enter(of, "annotations")
    walk.enter(of, "labels")
    for name, value in notes.items():
        if str(name).startswith((_APPARMOR, _SECCOMP)) and value not in {"runtime/default", "docker/default"}:
            if not str(value).startswith("localhost/"):
                there.at(f"[{name}]").refuse("takes a protection of the node away; leave it out")
        elif name == DELETION_COST:
            there.at(f"[{name}]").refuse("is how the operator says which pod goes; leave it out")


def _pod(walk: Walk, of: dict[str, Any]) -> None:
    for name in _SHARED:
        walk.unset(of, name, "shares the node with the pod; leave it out", allowed=(False,))
    walk.unset(of, "automountServiceAccountToken", "must be false: workers have no token", allowed=(False,))
    account = walk.rules.account
    for name in ("serviceAccountName", "serviceAccount"):
        walk.unset(
            of, name, f"must be {account!r} or left out: workers run as that ServiceAccount only", allowed=(account,)
        )
    walk.unset(of, "nodeName", "goes around the scheduler; use nodeSelector or affinity")
    walk.unset(of, "terminationGracePeriodSeconds", "is set by the operator; use spec.worker.drainSeconds")
    walk.unset(of, "restartPolicy", "must be Always or left out", allowed=("Always",))
    walk.unset(of, "ephemeralContainers", "is not for templates; use kubectl debug")
    walk.unset(of, "resourceClaims", "is not allowed: it claims devices of the cluster")
    priority = of.get("priorityClassName")
    if isinstance(priority, str) and priority.startswith("system-"):
        walk.at(".priorityClassName").refuse("is for parts of Kubernetes; use a class of your own")
    walk.unset(of, "priority", "is set by the cluster; use priorityClassName")
    _security(*walk.enter(of, "securityContext"))
    for there, entry in walk.entries(of, "imagePullSecrets", "name"):
        there.secret(entry["name"])
    for there, entry in walk.entries(of, "volumes", "name"):
        _volume(there, entry)
    for group in ("initContainers", "containers"):
        for there, entry in walk.entries(of, group, "name"):
            containers.container(there, entry, group)


def _security(walk: Walk, of: dict[str, Any]) -> None:
    containers.context(walk, of)
    for there, entry in walk.entries(of, "sysctls", "name"):
        if entry["name"] not in _SAFE_SYSCTLS:
            there.refuse("is not among the sysctls that Pod Security allows; leave it out")


def _volume(walk: Walk, of: dict[str, Any]) -> None:
    kinds = [kind for kind in of if kind != "name" and of[kind] is not None]
    for kind in kinds:
        there, source = walk.enter(of, kind)
        match kind:
            case "secret":
                there.secret(source.get("secretName"))
            case "persistentVolumeClaim":
                there.claim(source.get("claimName"))
            case "projected":
                _projected(there, source)
            case "ephemeral":
                _ephemeral(there, source)
            case _ if kind not in _VOLUMES:
                there.refuse(f"is not allowed; a volume may be {_KNOWN_VOLUMES}")


def _ephemeral(walk: Walk, of: dict[str, Any]) -> None:
    """A volume made for the pod may not begin as a copy of somebody's data."""
    there, claim = walk.enter(of, "volumeClaimTemplate")
    there, spec = there.enter(claim, "spec")
    for name in ("dataSource", "dataSourceRef", "volumeName"):
        there.unset(spec, name, "would bring in data of others; leave it out")


def _projected(walk: Walk, of: dict[str, Any]) -> None:
    sources = of.get("sources")
    if not isinstance(sources, list):
        walk.at(".sources").refuse("must be a list")
        return
    for place, source in enumerate(sources):
        there = walk.at(f".sources[{place}]")
        if not isinstance(source, dict):
            there.refuse("must be an object")
            continue
        for kind in source:
            inner, content = there.enter(source, kind)
            if kind == "secret":
                inner.secret(content.get("name"))
            elif kind not in {"configMap", "downwardAPI"}:
                inner.refuse("is not allowed; a projected volume may hold configMap, downwardAPI and secret")
