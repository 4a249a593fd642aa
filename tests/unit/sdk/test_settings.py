"""Where the server is and who asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskflow_queue import SettingError
from taskflow_queue.settings import DEFAULT_URL, resolve, write


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TASKFLOW_URL", raising=False)
    monkeypatch.delenv("TASKFLOW_API_KEY", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


def test_without_any_it_is_this_machine(tmp_path: Path) -> None:
    found = resolve(start=tmp_path)
    assert (found.url, found.api_key) == (DEFAULT_URL, None)


def test_the_nearest_file_above_is_used_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "http://one:1", "key")
    assert file.stat().st_mode & 0o777 == 0o600
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    found = resolve(start=below)
    assert (found.url, found.api_key) == ("http://one:1", "key")
    write(tmp_path / "a", "http://two:2", "other")
    assert resolve(start=below).url == "http://two:2"
    assert "other" not in repr(resolve(start=below))


def test_the_environment_wins_and_a_key_goes_to_no_other_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "http://one:1", "key")
    monkeypatch.setenv("TASKFLOW_URL", "http://elsewhere/")
    found = resolve(start=tmp_path)
    assert (found.url, found.api_key) == ("http://elsewhere", None)
    monkeypatch.setenv("TASKFLOW_URL", "http://one:1")
    assert resolve(start=tmp_path).api_key == "key"
    monkeypatch.setenv("TASKFLOW_API_KEY", "mine")
    assert resolve(start=tmp_path).api_key == "mine"


def test_a_wrong_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "http://one:1", "key").write_text("{")
    with pytest.raises(SettingError, match=r"client\.json cannot be read"):
        resolve(start=tmp_path)
    monkeypatch.setenv("TASKFLOW_URL", "localhost:8080")
    with pytest.raises(SettingError, match="TASKFLOW_URL is wrong"):
        resolve(start=tmp_path)
