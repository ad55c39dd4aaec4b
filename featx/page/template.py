"""Fill the template of a page."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from string import Template

from featx._text import show_html
from featx.explanation.row_page import PARTS_STYLE

__all__ = ["fill_template"]


def fill_template(title: str, sections: Iterable[str]) -> str:
    """Return a page with a title and sections of HTML, as one file that needs nothing else.

    Examples
    --------
    >>> from featx.page.template import fill_template
    >>> "<title>Cats &amp; dogs</title>" in fill_template("Cats & dogs", ["<h1>Cats</h1>"])
    True
    """
    folder = resources.files("featx.page")
    parts = {name: folder.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    return Template(parts["html"]).substitute(
        title=show_html(title),
        style=parts["css"] + PARTS_STYLE,
        script=parts["js"],
        body="\n".join(filter(None, sections)),
    )
