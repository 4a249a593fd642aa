"""What a child may use follows from the setting, else from the container's limit, in both kinds of cgroup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.worker.allowance import Allowance, Budget, container_bytes

if TYPE_CHECKING:
    from pathlib import Path

MB = 1024 * 1024
V1 = "9:name=systemd:/\n4:memory:/pods/a\n0::/\n"
V2 = "0::/pods/a\n"


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        (V1, {"memory/pods/a/memory.limit_in_bytes": "536870912\n"}, 512 * MB),
        (V1, {"memory/memory.limit_in_bytes": "536870912\n"}, 512 * MB),
        (V1, {"memory/pods/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        (V2, {"pods/a/memory.max": "536870912\n", "memory.max": "max\n"}, 512 * MB),
        (V2, {"pods/a/memory.max": "max\n", "pods/memory.max": "1073741824\n"}, 1024 * MB),
        (V2, {"pods/a/memory.max": "1073741824\n", "pods/memory.max": "536870912\n"}, 512 * MB),
        ("0::/\n", {"memory.max": "536870912\n"}, 512 * MB),
        (V2, {"unified/pods/a/memory.max": "536870912\n"}, 512 * MB),
        (V2, {"pods/a/memory.max": "max\n"}, None),
        (V2, {}, None),
    ],
)
def test_the_tightest_limit_is_found(tmp_path: Path, own: str, files: dict[str, str], found: int | None) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert container_bytes(tmp_path / "cgroup", tmp_path / "own") == found


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert container_bytes(tmp_path, tmp_path / "nothing") is None
    assert Budget(said=None).share(4) == Allowance()


@pytest.mark.parametrize("children", [1, 2, 4, 16])
@pytest.mark.parametrize("megabytes", [512, 2048, 65536])
def test_children_together_stay_below_the_container(megabytes: int, children: int) -> None:
    share = Budget(said=None, container=megabytes * MB).share(children)
    assert not share.firm
    assert share.most == 64 or children * share.most + 64 <= megabytes
    assert share.most <= share.wall <= megabytes


def test_too_small_a_container_leaves_each_child_enough_to_begin() -> None:
    assert Budget(said=None, container=128 * MB).share(8).most == 64


@pytest.mark.parametrize(
    ("said", "container", "share"),
    [
        (0, 512 * MB, Allowance(most=0, wall=0)),
        (150, None, Allowance(most=150, wall=600)),
        (150, 512 * MB, Allowance(most=150, wall=512)),
        (600, 512 * MB, Allowance(most=600, wall=600)),
    ],
)
def test_a_setting_holds_whatever_the_container_says(said: int, container: int | None, share: Allowance) -> None:
    assert Budget(said=said, container=container).share(4) == share
