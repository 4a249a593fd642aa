"""A corpus of bodies, each with the verdict that it must get."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.strict_json import MOST_DEPTH, NotJson, _examine, dumps, loads

GOOD: dict[bytes, Any] = {
    b"null": None,
    b"true": True,
    b' \t\r\n{"a" : 1}\n': {"a": 1},
    b"{}": {},
    b"[]": [],
    b'""': "",
    b"0": 0,
    b"-0": 0,
    b"1.5e3": 1500.0,
    b"1e308": 1e308,
    b"1e-400": 0.0,
    b"-1E+2": -100.0,
    b"9" * 64: int("9" * 64),
    b"-" + b"9" * 64: -int("9" * 64),
    b"18446744073709551616": 2**64,
    b"0." + b"3" * 100: 1 / 3,
    b'"a:b"': "a:b",
    b'{"a":":","b":"\\":"}': {"a": ":", "b": '":'},
    b'{"":1}': {"": 1},
    b'{"a":1,"A":2}': {"a": 1, "A": 2},
    b'{"a":{"a":{"a":1}}}': {"a": {"a": {"a": 1}}},
    b'[{"a":1},{"a":2}]': [{"a": 1}, {"a": 2}],
    b'"\\ud83d\\ude00"': "\U0001f600",
    '"\U0001f600é\u2028"'.encode(): "\U0001f600é\u2028",
    b'"\\u0001\\u001f\\u007f"': "\x01\x1f\x7f",
    b'"\\\\u0000"': "\\u0000",
    b'{"a":"' + b"0" * 200 + b'"}': {"a": "0" * 200},
    b"[" * MOST_DEPTH + b"]" * MOST_DEPTH: "deep",
    b"[" + b",".join([b"[[]]"] * 200) + b"]": [[[]]] * 200,
    b'"' + b"[" * 500 + b'"': "[" * 500,
}
# Text: (code, field, a word of the message)
BAD: dict[bytes, tuple[str, str | None, str]] = {
    b"": ("invalid_json", None, "expecting value"),
    b" ": ("invalid_json", None, "expecting value"),
    b"{": ("invalid_json", None, "line 1"),
    b"[1,]": ("invalid_json", None, "line 1"),
    b'{"a":1,}': ("invalid_json", None, "line 1"),
    b"{'a':1}": ("invalid_json", None, "line 1"),
    b"{a:1}": ("invalid_json", None, "line 1"),
    b"1 2": ("invalid_json", None, "extra data"),
    b"[1]]": ("invalid_json", None, "extra data"),
    b"01": ("invalid_json", None, "extra data"),
    b"+1": ("invalid_json", None, "expecting value"),
    b".5": ("invalid_json", None, "expecting value"),
    b"1.": ("invalid_json", None, "extra data"),
    b"0x10": ("invalid_json", None, "extra data"),
    b"tru": ("invalid_json", None, "expecting value"),
    b"True": ("invalid_json", None, "expecting value"),
    b"undefined": ("invalid_json", None, "expecting value"),
    b'"abc': ("invalid_json", None, "unterminated"),
    b'"\x00"': ("invalid_json", None, "control character"),
    b'"a\nb"': ("invalid_json", None, "control character"),
    b'"\\x41"': ("invalid_json", None, "escape"),
    b'"\\u12"': ("invalid_json", None, "escape"),
    b"// comment\n1": ("invalid_json", None, "expecting value"),
    b"/* */1": ("invalid_json", None, "expecting value"),
    b"\xef\xbb\xbf{}": ("invalid_json", None, ""),
    b"\xff\xfe{\x00}\x00": ("invalid_json", None, "utf-8"),
    b'"\xff"': ("invalid_json", None, "utf-8"),
    b'"\xc0\xaf"': ("invalid_json", None, "utf-8"),
    b'"\xed\xa0\x80"': ("invalid_json", None, "utf-8"),
    b"\x1f\x8b\x08\x00": ("invalid_json", None, "utf-8"),
    b"NaN": ("invalid", None, "finite"),
    b"Infinity": ("invalid", None, "finite"),
    b'{"a":[-Infinity]}': ("invalid", "a[0]", "finite"),
    b'{"a":{"b":NaN}}': ("invalid", "a.b", "finite"),
    b"1e400": ("invalid", None, "finite"),
    b'{"n":-1e999}': ("invalid", "n", "finite"),
    b'{"n":' + b"9" * 400 + b".0}": ("invalid", "n", "finite"),
    b"1" * 65: ("invalid", None, "64 digits"),
    b'{"n":[0,-' + b"1" * 65 + b"]}": ("invalid", "n[1]", "64 digits"),
    b"1" * 5000: ("invalid", None, "64 digits"),
    b'{"n":' + b"9" * 100_000 + b"}": ("invalid", "n", "64 digits"),
    b'{"a":1,"a":1}': ("invalid", "a", "twice"),
    b'{"a" : 1, "a" : 2}': ("invalid", "a", "twice"),
    b'{"a":1,"b":":","a":2}': ("invalid", "a", "twice"),
    b'{"x":[{"a":1,"a":2}]}': ("invalid", "x[0].a", "twice"),
    b'{"a":1,"\\u0061":2}': ("invalid", "a", "twice"),
    b'{"payload":{"path":1,"path":2}}': ("invalid", "payload.path", "twice"),
    b'"\\u0000"': ("invalid", None, "nul"),
    b'{"a":["x\\u0000y"]}': ("invalid", "a[0]", "nul"),
    b'{"a\\u0000":1}': ("invalid", "a\ufffd", "nul"),
    b'"\\ud800"': ("invalid", None, "surrogate"),
    b'"\\udc00"': ("invalid", None, "surrogate"),
    b'"\\ud800\\ud800"': ("invalid", None, "surrogate"),
    b'"\\ude00\\ud83d"': ("invalid", None, "surrogate"),
    b'{"t":"x\\ud800 "}': ("invalid", "t", "surrogate"),
    b'{"\\ud800":1}': ("invalid", "\ufffd", "surrogate"),
    b"[" * 65 + b"]" * 65: ("invalid", "[0]" * 64, "64 deep"),
    b'{"a":' * 65 + b"1" + b"}" * 65: ("invalid", ".".join("a" * 64), "64 deep"),
    b"[" * 100_000 + b"]" * 100_000: ("invalid", None, "64 deep"),
    b'{"a":' * 100_000: ("invalid", None, "64 deep"),
    b"[" * 200_000: ("invalid", None, "64 deep"),
}


def test_the_corpus_is_large_enough() -> None:
    assert len(GOOD) + len(BAD) >= 60


@pytest.mark.parametrize("text", GOOD, ids=lambda text: repr(text[:30]))
def test_what_is_json_comes_through(text: bytes) -> None:
    value = loads(text)
    assert value == _examine(text)
    assert GOOD[text] in (value, "deep")
    assert loads(dumps(value).encode()) == value


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:30]))
def test_what_is_not_is_refused_with_its_place(text: bytes) -> None:
    code, field, word = BAD[text]
    with pytest.raises(Invalid) as refused:
        loads(text)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert word in refused.value.message.lower()
    assert isinstance(refused.value, NotJson) == (code == "invalid_json")


@pytest.mark.parametrize("deep", [65, 480, 500, 900, 1000, 30_000])
@pytest.mark.parametrize(("before", "after"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_costs_no_more_than_a_moment_and_the_room_of_the_text(deep: int, before: bytes, after: bytes) -> None:
    wide = b"[" + b",".join([b"1"] * 200_000) + b"]"
    text = before * deep + wide + after * deep
    tracemalloc.start()
    with pytest.raises(Invalid, match="64 deep"):
        loads(text)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * len(text)


def test_a_long_path_is_cut() -> None:
    with pytest.raises(Invalid) as refused:
        loads(json.dumps({"x" * 10_000: "\0"}).encode())
    assert refused.value.field is not None
    assert len(refused.value.field) == 201


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_both_ways_agree_with_the_standard_library(value: Any, ascii_only: bool, indent: int | None) -> None:  # noqa: FBT001 - Hypothesis hands it in
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass")
    letters = set("".join(_texts(value)))
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in letters):
        with pytest.raises(Invalid):
            loads(text)
    else:
        assert _same(loads(text), value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *_texts(list(value.values()))]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-15)
    return bool(one == other)


KEYS = ["a", "b", ":", '":', " :", "é"]
VALUES = ['"x"', '":"', "1", "{}", '" :"', r'"\":"', r'"\u0022:"', r'"\u003a"', r'"\u003A"']


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=5),
    st.sampled_from([":", " :", ": ", "\n:"]),
)
def test_no_twin_slips_through(pairs: list[tuple[str, str]], colon: str) -> None:
    text = "{" + ",".join(f"{json.dumps(key)}{colon}{value}" for key, value in pairs) + "}"
    twins = len({key for key, _ in pairs}) < len(pairs)
    if twins:
        with pytest.raises(Invalid, match="twice"):
            loads(text.encode())
    else:
        assert loads(text.encode()) == json.loads(text)
