"""What all models share, and the small types."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class In(BaseModel):
    """A request: strict about types, and any field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Out(BaseModel):
    """An answer: documentation only, answers are not validated."""

    model_config = ConfigDict(extra="forbid")


def _moment(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        message = "it must be a time with its zone, like 2030-01-31T12:00:00Z"
        raise ValueError(message)
    try:
        moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        message = "there is no such day or time"
        raise ValueError(message) from None
    if not _EARLIEST <= moment < _LATEST:
        message = "it must be between the years 2000 and 2199"
        raise ValueError(message)
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
OutMoment = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time"})]
QueueName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Letters, digits, dot, underscore and hyphen; at most 63.",
        examples=["default"],
    ),
]
# No spaces and no control characters; otherwise free, because Python names are. It is looked up among the names that
# workers announced, and never imported.
TypeName = Annotated[
    str,
    Field(
        pattern=r"^[^\s\x00-\x20\x7f]+$",
        min_length=1,
        max_length=200,
        description="The name of a task that a worker announced, usually `module:function`.",
        examples=["examples.wordcount:count"],
    ),
]
