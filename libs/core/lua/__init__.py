"""The Lua scripts that run inside Redis, one a file. What must happen together in Redis happens in one of these."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest under which Redis knows it."""

    text: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script of `name`.lua; a missing file fails at the start of the module that wants it."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return Script(text=text, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
