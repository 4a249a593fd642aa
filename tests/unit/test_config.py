from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from core import config
from core.config import settings
from core.errors import SettingError, SettingMissing

if TYPE_CHECKING:
    from pathlib import Path


def test_importing_reads_nothing_and_connects_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")  # would raise if it were read
    modules = ["core.config", "core.errors", "core.clock", "core.telemetry", "core.embedded"]
    code = "; ".join(f"import {module}" for module in modules)
    environment = {"DATABASE_URL": "nonsense", "HEARTBEAT_INTERVAL_SECONDS": "x"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_missing_setting_is_one_line_that_names_it() -> None:
    with pytest.raises(SettingMissing) as raised:
        _ = settings.database_url
    assert str(raised.value).startswith("DATABASE_URL is not set; ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("DATABASE_URL", "mysql://somewhere/name"),
        ("DATABASE_URL", "somewhere:5432"),
        ("SECRET_KEY", "hunter2"),
        ("ALGORITHM", "none"),
        ("HEARTBEAT_INTERVAL_SECONDS", "61"),
        ("HEARTBEAT_INTERVAL_SECONDS", "soon"),
        ("REDIS_PORT_HIGH", "70000"),
        ("REDIS_TLS_LOW", "perhaps"),
        ("REGISTRATION", "maybe"),
        ("TASKFLOW_REDIS", "sometimes"),
        ("TASKFLOW_WORKER_CHILDREN", "-1"),
        ("TASKFLOW_LOG_LEVEL", "loud"),
        ("TASKFLOW_ELECTION", "etcd"),
        ("TASKFLOW_TRUSTED_PROXIES", "10.0.0.0/8, everybody"),
        ("TASKFLOW_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TASKFLOW_POLL_SECONDS", "often"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, wrong: str
) -> None:
    monkeypatch.setenv(variable, wrong)
    config.reload()
    with pytest.raises(SettingError) as raised:
        getattr(settings, variable)
    said = str(raised.value)
    assert said.startswith(f"{variable} is wrong: ")
    assert "\n" not in said
    assert f" {wrong}" not in said


def test_trusted_proxies_are_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.trusted_proxies == ()
    monkeypatch.setenv("TASKFLOW_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7,fd00::/8")
    config.reload()
    networks = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")))
    assert settings.trusted_proxies == networks


def test_a_mistake_in_one_setting_is_not_anothers_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "short")
    assert settings.heartbeat_interval_seconds == 5.0
    assert settings.lease_seconds == 15.0


def test_names_work_as_the_environment_spells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql:///x")
    monkeypatch.setenv("TASKFLOW_WORKER_SLOTS", "7")
    assert settings.DATABASE_URL == settings.database_url == "postgresql:///x"
    assert getattr(settings, "TASKFLOW_WORKER_SLOTS") == settings.worker_slots == 7  # noqa: B009 - no declared name


def test_a_prefixed_setting_is_not_read_without_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS", "off")
    monkeypatch.setenv("ENV", "staging")
    assert settings.redis
    assert settings.env == "production"


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_WORKER_QUEUES", "text, mail,")
    assert settings.worker_queues == ("text", "mail")


def test_zero_children_means_one_a_core_and_nothing_set_means_this_python() -> None:
    assert settings.worker_children >= 1
    assert settings.worker_python == sys.executable


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT_LOW", "")
    monkeypatch.setenv("REDIS_HOST_LOW", "")
    assert settings.redis_port_low == 6379
    assert not config.given("redis_host_low")


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("HEARTBEAT_INTERVAL_SECONDS=2\nTASKFLOW_WORKER_SLOTS=3\nTASKFLOW_FROM_THE_FUTURE=1\n")
    monkeypatch.setattr(config, "ENV_FILE", str(file))
    monkeypatch.setenv("TASKFLOW_WORKER_SLOTS", "4")
    assert (settings.heartbeat_interval_seconds, settings.worker_slots) == (2.0, 4)


def test_an_unreadable_env_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(config, "ENV_FILE", str(file))
    with pytest.raises(SettingError, match=r"\.env is no readable text file"):
        _ = settings.redis_host_high


def test_override_lasts_as_long_as_its_block() -> None:
    with config.override(heartbeat_interval_seconds=0.5):
        assert settings.lease_seconds == 1.5
    assert settings.lease_seconds == 15.0
    with pytest.raises(AttributeError), config.override(no_such_setting=1):
        pass


def test_settings_cannot_be_written_and_do_not_print_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    assert "sss" not in repr(settings.secret_key) + repr(settings)
    with pytest.raises(AttributeError):
        settings.secret_key = "x"  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="no setting"):
        _ = settings.no_such_setting  # type: ignore[attr-defined]
