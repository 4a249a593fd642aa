"""What a command's exit code means, and how an error is told. The codes are API.

0 done; 1 the task failed, or a check did; 2 wrong usage, setting or request; 3 the server cannot be reached, or cannot
do it now; 4 there is no such thing; 5 out of time; 6 not allowed; 7 not in this state; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from taskflow_queue import errors
from taskflow_queue.cli import output

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_FOUND: Final = 4
TIMEOUT: Final = 5
NOT_ALLOWED: Final = 6
CONFLICT: Final = 7
INTERRUPTED: Final = 130

_CODES: Final[tuple[tuple[type[errors.TaskFlowError], int], ...]] = (
    (errors.TaskError, FAILED),
    (errors.ResultTimeout, TIMEOUT),
    (errors.NotFound, NOT_FOUND),
    (errors.Unauthenticated, NOT_ALLOWED),
    (errors.Forbidden, NOT_ALLOWED),
    (errors.Conflict, CONFLICT),
    (errors.Throttled, UNREACHABLE),
    (errors.ServerError, UNREACHABLE),
    (errors.Unreachable, UNREACHABLE),
)


def code_of(error: errors.TaskFlowError) -> int:
    """Return the exit code that an error stands for."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), USAGE)


def of_status(status: str) -> int:
    """Return the exit code that a task's end stands for."""
    return OK if status == "COMPLETED" else FAILED


def tell(error: errors.TaskFlowError) -> None:
    """Write an error to stderr: what is wrong, then what to do about it."""
    fix = error.fix
    if isinstance(error, errors.Unauthenticated) and not fix:
        fix = "set TASKFLOW_API_KEY, or run `taskflow login`"
    output.problem(error.message, fix=fix, code=error.code)


class Group(TyperGroup):
    """A group of commands that tells errors of TaskFlow in words, and turns them into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except errors.TaskFlowError as error:
            tell(error)
            raise typer.Exit(code_of(error)) from None
        except BrokenPipeError:  # `taskflow task ls | head`
            sys.stderr.close()
            raise typer.Exit(OK) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
