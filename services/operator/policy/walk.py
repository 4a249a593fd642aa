"""A walk through a template of any shape, which collects sentences and never stumbles."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the installation lets templates use.

    `secrets` and `claims`: names of Secrets and PersistentVolumeClaims, with `*` for any characters. `account`: the
    ServiceAccount of the workers, the only one that a template may name. `reserved`: names of the chart's own
    containers except `worker`; another image in their place would get what was meant for them.
    """

    secrets: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    account: str = ""
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Walk:
    """Where the walk is, and what was found so far on all of it."""

    path: str
    rules: Rules
    found: list[str] = field(default_factory=list)

    def refuse(self, what: str) -> None:
        """Note a sentence about this place; `what` goes on after the path."""
        self.found.append(f"{self.path} {what}.")

    def at(self, step: str) -> Walk:
        return Walk(f"{self.path}{step}", self.rules, self.found)

    def enter(self, of: dict[str, Any], name: str) -> tuple[Walk, dict[str, Any]]:
        """Step into a field that must be an object; an absent one is empty."""
        there = self.at(f".{name}")
        value = of.get(name)
        if value is None or isinstance(value, dict):
            return there, value or {}
        there.refuse("must be an object")
        return there, {}

    def entries(self, of: dict[str, Any], name: str, key: str) -> Iterator[tuple[Walk, dict[str, Any]]]:
        """Step into each entry of a list of objects, which `key` tells apart."""
        there = self.at(f".{name}")
        value = of.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            there.refuse("must be a list")
            return
        for place, entry in enumerate(value):
            if isinstance(entry, dict) and isinstance(entry.get(key), str | int) and entry[key] != "":
                yield there.at(f"[{entry[key]}]"), entry
            elif isinstance(entry, dict):
                there.at(f"[{place}]").refuse(f"needs a {key}")
            else:
                there.at(f"[{place}]").refuse("must be an object")

    def unset(self, of: dict[str, Any], name: str, why: str, allowed: tuple[object, ...] = ()) -> None:
        """Refuse a field that says anything but what is allowed, or nothing."""
        value = of.get(name)
        if value is not None and not any(
            value is one or (value == one and type(value) is type(one)) for one in allowed
        ):
            self.at(f".{name}").refuse(why)

    def secret(self, name: object) -> None:
        """Refuse a Secret that the installation does not let templates use."""
        if not _named(name, self.rules.secrets):
            self.refuse(
                f"uses the Secret {name!r}, which is not for tasks; whoever installed TaskFlow can add it to the "
                "chart's operator.workerSecrets"
            )

    def claim(self, name: object) -> None:
        """Refuse a PersistentVolumeClaim that the installation does not let templates use."""
        if not _named(name, self.rules.claims):
            self.refuse(
                f"uses the PersistentVolumeClaim {name!r}, which is not for tasks; whoever installed TaskFlow can "
                "add it to the chart's operator.workerClaims"
            )


def _named(name: object, patterns: tuple[str, ...]) -> bool:
    return isinstance(name, str) and any(fnmatchcase(name, pattern) for pattern in patterns)
