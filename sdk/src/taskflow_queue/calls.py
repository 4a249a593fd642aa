"""A call of a function as JSON: what a task carries to its worker and back.

Owns the shape of a payload and the limits of sizes. Does not know tasks, and runs nothing.
"""

from __future__ import annotations

import json
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow_queue.errors import NotJson, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_PAYLOAD_BYTES: Final = 256 * 1024
MOST_RESULT_BYTES: Final = 1024 * 1024
_CALL: Final = {"args", "kwargs"}
_dumps: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_PLAIN: Final = frozenset({int, str, bool, NoneType})  # what both encoders write alike
_quickly: Final = msgspec.json.Encoder().encode


def payload(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a call. `arguments` is its inverse."""
    return {"args": list(args), "kwargs": dict(kwargs)}


def arguments(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments that a decoded payload stands for.

    {"args": [...], "kwargs": {...}} is a call as the SDK writes it; any other object is keyword arguments, null is
    no argument, any other value is the one positional argument.
    """
    if payload is None:
        return [], {}
    if not isinstance(payload, dict):
        return [payload], {}
    if payload.keys() == _CALL and isinstance(payload["args"], list) and isinstance(payload["kwargs"], dict):
        return payload["args"], payload["kwargs"]
    return [], payload


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any], *, name: str) -> bytes:
    """Return the payload of a call of the task `name` as JSON. Raises NotJson, TooLarge."""
    if _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values())):
        try:
            encoded = _quickly({"args": args, "kwargs": kwargs})
        except ValueError:
            encoded = b""  # what is wrong, `encode` says
        if 0 < len(encoded) <= MOST_PAYLOAD_BYTES and b"\\u0000" not in encoded:
            return encoded
    return encode(payload(args, kwargs), what=f"arguments of {name}", most=MOST_PAYLOAD_BYTES)


def encode(value: Any, *, what: str = "value", most: int | None = None) -> bytes:
    """Return `value` as JSON. Raises NotJson (also for NaN, NUL, lone surrogates), and TooLarge above `most` bytes."""
    try:
        text = _dumps(value)
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        reason = "it is nested too deeply" if isinstance(wrong, RecursionError) else str(wrong)
        fix = "use dicts with string keys, lists, strings, finite numbers, booleans and None"
        raise NotJson(f"the {what} cannot be written as JSON: {reason}", fix=fix) from wrong
    if "\\u0000" in text:
        _refuse_nul(value, what)
    if most is not None and len(encoded) > most:
        message = f"the {what} is {len(encoded):,} bytes of JSON, and the limit is {most:,}"
        raise TooLarge(message, fix="store it elsewhere and pass its place")
    return encoded


def _refuse_nul(value: Any, what: str) -> None:
    """PostgreSQL's text cannot hold NUL. A backslash before `u0000` in a string of the user's is no NUL."""
    match value:
        case str() if "\0" in value:
            raise NotJson(f"the {what} has a NUL character, which the database cannot hold", fix="remove it")
        case dict():
            for key, item in value.items():
                _refuse_nul(key, what)
                _refuse_nul(item, what)
        case list() | tuple():
            for item in value:
                _refuse_nul(item, what)
        case _:
            pass


def decode(encoded: bytes | str) -> Any:
    """Return the value of JSON text that `encode` or the server wrote."""
    return json.loads(encoded)
