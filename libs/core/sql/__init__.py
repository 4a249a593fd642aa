"""The fixed statements: one file each, pasteable into psql; parameters are explained at the head of each file.

Those in WORKER_FUNCTIONS are what a worker runs. Every installation has them as PostgreSQL functions as well, so that
a worker's role needs no right on any table. To make a statement such a function, add its name here: core.functions
finds the types, and `call` gives the text that a verb sends instead of `statement`.
"""

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

WORKER_FUNCTIONS: Final = (
    "append_logs",
    "beat",
    "claim",
    "claimed_under",
    "ended_under",
    "finish",
    "inventory",
    "poll",
    "progress",
    "queue_concurrency",
    "record_fenced",
    "still_held",
    "succeed",
    "unclaimed",
    "worker_register",
    "worker_state",
)
# What stands around a statement in its function. Part of the digest, as the statements are.
TEMPLATE: Final = """
create function public.{name}({parameters}) returns {answer}
language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $taskflow$
#variable_conflict use_column
begin
    {give}{body};
end
$taskflow$
"""
_PARAMETER: Final = re.compile(r"\$(\d+)")


@cache
def statement(name: str) -> str:
    """Return the text of `name`.sql. Raises FileNotFoundError when there is no such statement."""
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def body(text: str) -> str:
    """Return a statement without its comments: another comment makes no other function."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).rstrip().removesuffix(";")


@cache
def digest() -> str:
    """Return 16 hexadecimal digits that stand for the content of all worker functions: the end of their names.

    So the functions of two versions exist side by side, and each worker calls those that it was written for.
    """
    said = hashlib.sha256(TEMPLATE.encode())
    for name in sorted(WORKER_FUNCTIONS):
        said.update(f"\0{name}\0{body(statement(name))}".encode())
    return said.hexdigest()[:16]


def function_name(name: str, suffix: str | None = None) -> str:
    """Return the name of the function made of `name`.sql; `suffix` None is this code's digest."""
    return f"taskflow_{name}_{suffix or digest()}"


@cache
def call(name: str, suffix: str | None = None) -> str:
    """Return the statement that calls the function made of `name`.sql, with the same parameters.

    Raises ValueError when `name` is not in WORKER_FUNCTIONS.
    """
    if name not in WORKER_FUNCTIONS:
        message = f"{name} is no worker function: add it to core.sql.WORKER_FUNCTIONS"
        raise ValueError(message)
    count = max((int(number) for number in _PARAMETER.findall(body(statement(name)))), default=0)
    given = ", ".join(f"${number}" for number in range(1, count + 1))
    return f"select * from public.{function_name(name, suffix)}({given})"  # noqa: S608 - of our own names and digits
