"""JSON from strangers: one loader that refuses what a store, a worker or another parser would choke on.

Refused: nesting deeper than 64, NaN, Infinity, numbers beyond a double, integers of more than 64 digits, a key twice
in one object, NUL in any text, lone surrogates, text that is no UTF-8. Each error names the place as `field`.
"""

import json
import math
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from core.errors import Invalid

MOST_DEPTH: Final = 64
MOST_DIGITS: Final = 64

_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER: Final = b"0" * (MOST_DIGITS + 1)
_SPACED_COLON: Final = (b" :", b"\n:", b"\t:", b"\r:")
_NUL: Final = b"\\u0000"
_ESCAPED: Final = b"\\u00"  # what may be a quote or a colon, written otherwise
_DEEP: Final = b"\n" + b" " * MOST_DEPTH
_ROOM: Final = 16 * 1024 * 1024  # bytes for lines that are all indented as far as the parser goes
_FIELD_LENGTH: Final = 200
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_format: Final = msgspec.json.format


class NotJson(Invalid):
    """The text is not JSON at all: nothing in it can be named."""

    code = "invalid_json"


class _Twice(dict[str, Any]):
    """An object in which `key` stood more than once."""

    key: str


def loads(text: bytes) -> Any:
    """Return the value of `text`. Raises Invalid, with the path of what is wrong as its field, or NotJson."""
    try:
        value = _decode(text)
        plain = _is_plain(text, value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _examine(text)
    return value if plain else _examine(text)


def dumps(value: object) -> str:
    """Return `value`, as `loads` gave it, as JSON text without spaces."""
    return _encode(value).decode()


def _is_plain(text: bytes, value: Any) -> bool:
    """Tell whether nothing in `text` needs the slow examination; a false alarm costs only time.

    Each pair of an object has its colon. When no space stands before any colon, the pairs are at most as many as
    the occurrences of `":`; so when the decoded objects hold that many keys, none was lost to a twin. The keys are
    counted in the text of the decoded value, which has the same strings unless a character was escaped needlessly;
    its depth is how far the lines of the same text are indented. Both are done in C, unless those lines could need
    much more room than the text.
    """
    if _NUL in text or _LONG_NUMBER in text.translate(_DIGITS) or any(spaced in text for spaced in _SPACED_COLON):
        return False
    colons = text.count(b'":')
    opens = text.count(b"[") + text.count(b"{")
    room = (2 * opens + text.count(b",")) * min(opens, sys.getrecursionlimit())
    if room <= _ROOM and _ESCAPED not in text:
        again = _encode(value)
        if _DEEP not in _format(again, indent=1):
            return again.count(b'":') == colons
    keys, depth = _measure(value)
    return depth <= MOST_DEPTH and keys == colons


def _measure(value: Any) -> tuple[int, int]:
    keys, deepest = 0, 0
    level = [value] if type(value) in {dict, list} else []
    while level:
        deepest += 1
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                keys += len(each)
                below += [inner for inner in each.values() if type(inner) is dict or type(inner) is list]
            else:
                below += [inner for inner in each if type(inner) is dict or type(inner) is list]
        level = below
    return keys, deepest


# ── the slow way, which knows where ─────────────────────────────────────────────────────────────────────────────────


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = _Twice(found)
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


class _Digits(str):
    """A number that is too long to be converted."""

    __slots__ = ()


def _whole(digits: str) -> int | _Digits:
    return _Digits(digits) if len(digits.lstrip("-")) > MOST_DIGITS else int(digits)


_slow: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_whole, parse_constant=float)


def _examine(text: bytes) -> Any:
    try:
        value = _slow.decode(text.decode())
    except RecursionError:
        raise _too_deep("") from None
    except UnicodeDecodeError as broken:
        message = f"The body is not UTF-8: byte {broken.start} cannot be read"
        raise NotJson(message, fix="send JSON encoded as UTF-8") from None
    except json.JSONDecodeError as broken:
        message = f"The body is not JSON: {broken.msg.lower()} at line {broken.lineno}, column {broken.colno}"
        raise NotJson(message, fix="send one JSON value") from None
    for path, inner in _walk(value):
        _check(path, inner)
    return value


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value below and at `value` with its path; parents before children."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, each, depth = stack.pop()
        yield path, each
        if isinstance(each, (dict, list)) and depth >= MOST_DEPTH:
            raise _too_deep(path)
        if isinstance(each, dict):
            stack += [(_below(path, key), inner, depth + 1) for key, inner in each.items()]
        elif isinstance(each, list):
            stack += [(f"{path}[{index}]", inner, depth + 1) for index, inner in enumerate(each)]


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _check(path: str, value: object) -> None:
    match value:
        case _Twice():
            raise _refusal(f"The key {_shown(value.key)!r} stands twice in one object", _below(path, value.key))
        case _Digits():
            raise _refusal(f"A number may have at most {MOST_DIGITS} digits", path)
        case str():
            _check_text(path, value)
        case dict():
            for key in value:
                _check_text(_below(path, key), key)
        case float() if not math.isfinite(value):
            raise _refusal("A number must be finite and fit a double: no NaN, no Infinity", path)
        case _:
            pass


def _check_text(path: str, text: str) -> None:
    if "\0" in text:
        raise _refusal("Text may not contain NUL (\\u0000)", path)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _refusal("Text may not contain half of a surrogate pair", path)


def _too_deep(path: str) -> Invalid:
    return _refusal(f"Values may be nested at most {MOST_DEPTH} deep", path)


def _refusal(message: str, path: str) -> Invalid:
    return Invalid(message, fix="change or remove that value", field=_shown(path) or None)


def _shown(path: str) -> str:
    """Return `path` fit for an answer: bounded, and without what JSON or a terminal cannot carry."""
    path = path if len(path) <= _FIELD_LENGTH else f"{path[:_FIELD_LENGTH]}…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in path)
