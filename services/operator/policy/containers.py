"""The containers of a pod: their security, their environment, and how they reach out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.operator.objects import CONTAINER, OWN_ENV, OWN_FIELDS

if TYPE_CHECKING:
    from services.operator.policy.walk import Walk

_CONFINED: Final = ("RuntimeDefault", "Localhost")
_PROBES: Final = ("readinessProbe", "livenessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")
_REACHES: Final = ("httpGet", "tcpSocket")
_SELINUX: Final = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t", "")


def container(walk: Walk, of: dict[str, Any], group: str) -> None:
    """Look at a container of `containers` or `initContainers`."""
    ours = group == "containers" and of["name"] == CONTAINER
    there, said = walk.enter(of, "securityContext")
    _security(there, said)
    if of["name"] in walk.rules.reserved:
        walk.refuse("is a container of TaskFlow's own; give yours another name")
    elif ours:
        for name in OWN_FIELDS:
            walk.unset(of, name, "is set by the operator, whose scale-downs depend on it; leave it out")
    elif not isinstance(of.get("image"), str) or not of["image"]:
        walk.refuse("needs an image; the container with your tasks is called worker")
    for port, entry in walk.entries(of, "ports", "containerPort"):
        port.unset(entry, "hostPort", "takes a port of the node; leave it out", allowed=(0,))
        port.unset(entry, "hostIP", "takes an address of the node; leave it out")
    for there, entry in walk.entries(of, "env", "name"):
        if ours and entry["name"] in OWN_ENV:
            there.refuse("is set by the operator, from the spec of the TaskQueue; leave it out")
        inner, source = there.enter(entry, "valueFrom")
        inner, secret = inner.enter(source, "secretKeyRef")
        if secret:
            inner.secret(secret.get("name"))
    _env_from(walk, of)
    _reaching(walk, of)
    list(walk.entries(of, "volumeMounts", "mountPath"))


def context(walk: Walk, of: dict[str, Any]) -> None:
    """Look at what the security contexts of pods and of containers have in common."""
    walk.unset(of, "runAsNonRoot", "must be true or left out", allowed=(True,))
    user = of.get("runAsUser")
    if user is not None and (not isinstance(user, int) or isinstance(user, bool) or user <= 0):
        walk.at(".runAsUser").refuse("must be a number above 0: root is not allowed")
    for name in ("seccompProfile", "appArmorProfile"):
        there, profile = walk.enter(of, name)
        there.unset(profile, "type", "must be RuntimeDefault or Localhost", allowed=_CONFINED)
    there, linux = walk.enter(of, "seLinuxOptions")
    there.unset(linux, "user", "is not allowed; leave it out", allowed=("",))
    there.unset(linux, "role", "is not allowed; leave it out", allowed=("",))
    there.unset(linux, "type", "is not among those that Pod Security allows; leave it out", allowed=_SELINUX)
    there, windows = walk.enter(of, "windowsOptions")
    there.unset(windows, "hostProcess", "is not allowed; leave it out", allowed=(False,))


def _security(walk: Walk, of: dict[str, Any]) -> None:
    context(walk, of)
    walk.unset(of, "privileged", "gives the container the node; leave it out", allowed=(False,))
    walk.unset(of, "allowPrivilegeEscalation", "must be false or left out", allowed=(False,))
    walk.unset(of, "procMount", "must be Default or left out", allowed=("Default",))
    there, said = walk.enter(of, "capabilities")
    added = said.get("add") or []
    if not isinstance(added, list) or any(name != "NET_BIND_SERVICE" for name in added):
        there.at(".add").refuse("may hold NET_BIND_SERVICE only")
    dropped = said.get("drop")
    if dropped is not None and (not isinstance(dropped, list) or "ALL" not in dropped):
        there.at(".drop").refuse('must hold "ALL" or be left out')


def _env_from(walk: Walk, of: dict[str, Any]) -> None:
    sources = of.get("envFrom") or []
    if not isinstance(sources, list):
        walk.at(".envFrom").refuse("must be a list")
        return
    for place, source in enumerate(sources):
        there = walk.at(f".envFrom[{place}]")
        if not isinstance(source, dict):
            there.refuse("must be an object")
            continue
        inner, secret = there.enter(source, "secretRef")
        if secret:
            inner.secret(secret.get("name"))


def _reaching(walk: Walk, of: dict[str, Any]) -> None:
    """The kubelet asks in the name of the node: it may ask the pod itself, and nobody else."""
    there, life = walk.enter(of, "lifecycle")
    deeds = [(walk, of, name) for name in _PROBES] + [(there, life, name) for name in _HOOKS]
    for place, holder, name in deeds:
        deed, said = place.enter(holder, name)
        for way in _REACHES:
            inner, asked = deed.enter(said, way)
            inner.unset(asked, "host", "lets the node ask another address; leave it out", allowed=("",))
