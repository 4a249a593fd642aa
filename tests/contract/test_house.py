"""The house's rules that no linter knows. Each list of exceptions gives its reasons."""

from __future__ import annotations

import ast
import re
import sys

from core import config, errors
from tests.contract.files import ROOT, committed, imports, python, text, tree

SOFT, HARD = 300, 500
# File: why it is longer than 300 lines.
LONG: dict[str, str] = {}
# Verbs take a transaction and never end it. File: why it may.
COMMITS = {
    "libs/core/accounts.py": "its own command line, which makes an administrator",
    "libs/core/migrate.py": "its own command line, which makes the administrator of an installation",
    "libs/core/functions.py": "all functions of a version, or none: a part of core.migrate",
    "libs/core/roles.py": "all rights at once, or none: a part of core.migrate",
    "libs/core/database.py": "the sync session's one place",
    "libs/core/pool.py": "the async transaction's one place",
    "services/api/deps.py": "the edge: one request, one transaction",
    "services/dev/main.py": "the edge: the account of this machine",
    "services/dev/stage.py": "the edge: the account of a demo or a benchmark",
    "libs/core/leadership.py": "a leader's transaction, which begins with the guard, and the one that takes the epoch",
}


def test_no_file_grows_into_the_file_where_all_the_pain_is() -> None:
    sizes = {name: text(name).count("\n") for name in python("libs", "services", "sdk", "tests", "examples", "bench")}
    too_long = {name: size for name, size in sizes.items() if size > HARD}
    assert too_long == {}
    own = {name for name, size in sizes.items() if size > SOFT and not name.startswith("tests/")}
    assert set() == own - LONG.keys(), "split by aggregate or by verb, or name the reason in LONG"


def test_every_named_exception_is_still_one() -> None:
    there = set(committed())
    assert set() == {name for name in LONG if name in there and text(name).count("\n") <= SOFT}


def test_the_domain_imports_the_standard_library_only() -> None:
    foreign = {
        (name, module)
        for name in python("libs/core/domain")
        for module in imports(name)
        if module.partition(".")[0] not in sys.stdlib_module_names and not module.startswith("core.domain")
    }
    assert set() == foreign


def test_the_worker_uses_nothing_of_the_sdk_but_the_protocol() -> None:
    used = {
        (name, module)
        for name in python("services/worker")
        for module in imports(name)
        if module.startswith("taskflow_queue") and not module.startswith("taskflow_queue.protocol")
    }
    assert set() == used - {(name, "taskflow_queue") for name in python("services/worker")}


# Processes with a password of PostgreSQL or Redis. Only they are closed to others of their user: the children of a fork
# server that is closed cannot write their own files in /proc.
HOLD_SECRETS = {
    *(f"services/{name}/main.py" for name in ("api", "scheduler", "worker", "operator", "dev")),
    *(f"libs/core/{name}.py" for name in ("migrate", "doctor", "accounts")),
}


def test_only_processes_that_hold_secrets_are_closed() -> None:
    call = re.compile(r"^ +protect\(\)$", re.MULTILINE)
    callers = {name for name in python("libs", "services", "sdk") if call.search(text(name))}
    assert callers == HOLD_SECRETS


SQL = re.compile(
    r"\b(select\s.+\sfrom\s|insert\s+into\s|update\s+\w+\s+set\s|delete\s+from\s|(create|alter|drop)\s+(table|index))",
    re.IGNORECASE | re.DOTALL,
)


def test_there_is_no_sql_outside_core() -> None:
    def prose(module: ast.Module) -> set[int]:
        """Docstrings may speak of SQL."""
        return {
            id(node.body[0].value)
            for node in ast.walk(module)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }

    found = {
        (name, node.lineno)
        for name in python("services", "sdk")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose(tree(name))
        if SQL.search(node.value)
    }
    assert set() == found


def test_transactions_begin_and_end_at_the_edge_only() -> None:
    ends = re.compile(r"\.(commit|begin|begin_nested)\(")
    found = {name for name in python("libs", "services") if ends.search(text(name))}
    assert set() == found - COMMITS.keys()


# Written in parts, so that this file does not hold what it forbids.
HOSTS = [
    "py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs", "static." + "crates.io", "proxy." + "golang.org",
    "repo1." + "maven", "deb." + "debian.org",
]  # fmt: skip
PATHS = re.compile(r"(?<![\w.])/(" + "work|root|home/[a-z]+|Users/[A-Za-z]+" + r")/[\w.-]")


def test_no_registry_and_no_path_of_a_machine_is_named() -> None:
    named = {
        (name, number)
        for name in committed()
        for number, line in enumerate(text(name).splitlines(), 1)
        if any(host in line for host in HOSTS) or PATHS.search(line)
    }
    assert set() == named


def _errors(base: type[errors.TaskFlowError] = errors.TaskFlowError) -> list[type[errors.TaskFlowError]]:
    return [base, *(found for child in base.__subclasses__() for found in _errors(child))]


def test_every_error_has_a_code_of_its_own() -> None:
    own = [error for error in _errors() if error.__module__ == "core.errors"]
    assert len(own) == len({error.code for error in own})
    assert [error for error in own if not re.fullmatch(r"[a-z_]+", error.code)] == []


def test_the_example_env_file_lists_every_setting_and_no_other() -> None:
    listed = re.findall(r"^#?([A-Z][A-Z_]+)=", text(".env.example"), re.MULTILINE)
    assert sorted(listed) == sorted(config.variable(name) for name in config.Settings.model_fields)


def test_the_example_env_file_shows_the_defaults() -> None:
    for variable, shown in re.findall(r"^#([A-Z][A-Z_]+)=(.+)$", text(".env.example"), re.MULTILINE):
        field = next(name for name in config.Settings.model_fields if config.variable(name) == variable)
        default = config.Settings.model_fields[field].default
        spelled = {True: "on", False: "off"}.get(default, default) if isinstance(default, bool) else default
        said = str(spelled).removesuffix(".0") if isinstance(spelled, float) else str(spelled)
        assert (variable, shown) == (variable, said)


def test_every_make_target_is_explained() -> None:
    targets = re.findall(r"^([a-z-]+):(.*)$", text("Makefile"), re.MULTILINE)
    assert [name for name, rest in targets if "## " not in rest] == []


def test_the_migrations_folder_is_no_package() -> None:
    assert not (ROOT / "alembic/__init__.py").exists(), "it would hide the library of that name"


# File: why it may open a session with PostgreSQL by a driver. All others get the settings of core/urls.py for nothing.
OPENS = {
    "libs/core/sessions.py": "the one place for asyncpg",
    "libs/core/pool.py": "its pool, which opens sessions there",
    "libs/core/embedded/postgres.py": "the superuser who makes the database of a laptop",
}


def test_every_session_is_opened_where_its_settings_are() -> None:
    drivers = re.compile(r"\b(asyncpg|psycopg2?)\.(connect|create_pool)\(")
    assert {name for name in python("libs", "services", "alembic") if drivers.search(text(name))} == set(OPENS)
    engines = re.compile(r"\bcreate_engine\(\s*([\w.]+)")
    engines_of = {(name, url) for name in python("libs", "services") for url in engines.findall(text(name))}
    assert {url for _, url in engines_of} == {"for_psycopg2"}
    assert "for_psycopg2(settings.database_url, MIGRATION)" in text("alembic/env.py")
