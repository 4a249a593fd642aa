"""Mutated statements: sent instead of the true ones, and as functions of a worker where the true ones are that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import functions, sql
from core.verbs import feeding, gating, keeping, leading, owning, queues, running, scaling, submitting, workers

if TYPE_CHECKING:
    import pytest

VERBS = (feeding, gating, keeping, leading, owning, queues, running, scaling, submitting, workers)
SUFFIX = "mutant"


def changed(name: str, *changes: tuple[str, str]) -> str:
    """Return the text of a statement with `changes`, each of which must be about one place in it."""
    text = sql.statement(name)
    for old, new in changes:
        assert text.count(old) == 1, f"{name}.sql changed: mend this mutation"
        text = text.replace(old, new)
    return text


async def made(tx: Any, name: str, text: str) -> None:
    """Make the function of a worker from a mutated text."""
    await tx.execute(f"drop function if exists public.{sql.function_name(name, SUFFIX)}")
    await functions.create(tx, name, text, SUFFIX)


def sent(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Have the verbs send `text` instead of a statement, and call its mutant instead of a function."""

    def statement(asked: str) -> str:
        return text if asked == name else sql.statement(asked)

    def call(asked: str) -> str:
        return sql.call(asked, SUFFIX) if asked == name else sql.call(asked)

    for module in VERBS:
        for attribute, replacement in (("statement", statement), ("call", call)):
            if hasattr(module, attribute):
                monkeypatch.setattr(module, attribute, replacement)
