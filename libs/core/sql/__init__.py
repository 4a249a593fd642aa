"""The fixed statements: one file each, pasteable into psql; parameters are explained at the head of each file."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """Return the text of `name`.sql. Raises FileNotFoundError when there is no such statement."""
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
