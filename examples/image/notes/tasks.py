"""Turn notes into web pages.

Submit one:  taskflow task submit notes.tasks:render text='# Hello' --watch
"""

from __future__ import annotations

import markdown

from taskflow_queue import task


@task(queue="notes", timeout=30)
def render(text: str) -> str:
    """Return Markdown as HTML."""
    return markdown.markdown(text)
