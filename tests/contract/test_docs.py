"""The documentation points at things that are there."""

from __future__ import annotations

import re

import pytest

from core import lifecycle_page
from tests.contract.files import ROOT, committed, text

PAGES = [name for name in committed() if name.endswith(".md")]


@pytest.mark.parametrize("page", PAGES)
def test_docs_links_lead_somewhere(page: str) -> None:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", prose)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_docs_name_make_targets_that_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text(page)))
    assert set() == named - targets


def test_docs_lifecycle_is_in_step_with_the_table() -> None:
    assert text("docs/lifecycle.md") == lifecycle_page.page(), "python -m core.lifecycle_page > docs/lifecycle.md"
