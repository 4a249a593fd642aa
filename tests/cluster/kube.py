"""kubectl, as the tests use it: one namespace, JSON answers, a bound on everything."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from tests.signals import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "app.kubernetes.io/name=taskflow"
COMPONENT = "app.kubernetes.io/component"
QUEUE = "taskflow.dev/queue"


class CommandFailed(Exception):
    """A command ended with another code than 0; its words are the message."""


def command(*words: str, given: str | None = None, within: float = 60.0, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed. Raises CommandFailed with everything it said."""
    try:
        done = subprocess.run(
            words, input=given, capture_output=True, text=True, timeout=within, check=False, env=env, errors="replace"
        )
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(f"{' '.join(words)[:300]}: not within {within} s\n{late.stdout}\n{late.stderr}") from None
    if done.returncode:
        raise CommandFailed(f"{' '.join(words)[:300]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Kube:
    """kubectl in one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def __call__(self, *words: str, given: str | None = None, within: float = 60.0) -> str:
        """Run `kubectl WORDS` here and return what it printed."""
        return command("kubectl", "-n", self.namespace, *words, given=given, within=within)

    def refused(self, *words: str, given: str | None = None) -> str:
        """Run something that is to fail, and return what was said."""
        try:
            said = self(*words, given=given)
        except CommandFailed as failed:
            return str(failed)
        raise AssertionError(f"kubectl {' '.join(words)} was not refused: {said}")

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply manifests."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self("apply", "-f", "-", given=text)

    def patch(self, what: str, change: dict[str, Any], *words: str) -> None:
        """Change an object by a merge patch; `what` is kind/name."""
        self("patch", what, "--type=merge", "-p", json.dumps(change), *words)

    def one(self, what: str) -> dict[str, Any]:
        """One object, kind/name, with who wrote its fields; an empty dict when there is none."""
        said = self("get", what, "-o", "json", "--ignore-not-found", "--show-managed-fields")
        return json.loads(said) if said.strip() else {}

    def all(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind that a label selector matches."""
        words = ["-l", selector] if selector else []
        return json.loads(self("get", kind, "-o", "json", *words))["items"]

    def until(self, found: Callable[[], Any], within: float, every: float = 0.3) -> Any:
        """Ask again until the answer is true; an API server that does not answer once is asked again, too."""

        def asked() -> Any:
            try:
                return found()
            except CommandFailed:
                return None

        return until(asked, within, every)

    # ── pods ────────────────────────────────────────────────────────────────────────────────────────────

    def pods(self, component: str = "", queue: str = "") -> list[dict[str, Any]]:
        """Pods of the product that are not on their way out."""
        wanted = [NAME, f"{COMPONENT}={component}" if component else "", f"{QUEUE}={queue}" if queue else ""]
        found = self.all("pods", ",".join(filter(None, wanted)))
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and not ended(pod)]

    def names(self, component: str = "", queue: str = "") -> list[str]:
        """Their names."""
        return [pod["metadata"]["name"] for pod in self.pods(component, queue)]

    def ready(self, component: str = "", queue: str = "") -> list[str]:
        """The names of those that are ready."""
        return [pod["metadata"]["name"] for pod in self.pods(component, queue) if is_ready(pod)]

    def kill(self, *pods: str) -> None:
        """Delete pods by force, without waiting for anything."""
        self("delete", "pod", "--force", "--grace-period=0", "--wait=false", *pods)

    def inside(self, pod: str, *words: str, given: str | None = None, within: float = 60.0) -> str:
        """Run a command in a pod's first container."""
        return self("exec", "-i", pod, "--", *words, given=given, within=within)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the API shows a pod as Ready."""
    return condition(pod, "Ready").get("status") == "True"


def ended(pod: dict[str, Any]) -> bool:
    """Whether a pod has run to its end."""
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def restarts(pods: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How often containers were restarted, for those pods where one was."""
    counts = {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
        for pod in pods
    }
    return {name: count for name, count in counts.items() if count}


def condition(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of an object's status; an empty dict when it has none of that type."""
    return next((one for one in thing.get("status", {}).get("conditions", []) if one["type"] == kind), {})
