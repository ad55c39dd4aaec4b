"""Stage the pages of the documentation site in build/docs, for `make docs`.

The pages in docs/ are written to be read in the repository as well. This copies them, and all files that they link to,
into one folder, turns links to match, and writes a page of the API reference for each public module.
"""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
import shutil
from pathlib import Path

import featx

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "build" / "docs"

#: Pages outside docs/ that are pages of the site, too. Every other file that a page links to is copied as it is.
BESIDE = ["benchmarks/RESULTS.md", "examples/README.md", "examples/browser/README.md", "models/README.md"]
BESIDE += ["CONTRIBUTING.md", "CHANGELOG.md"]

_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")


def main() -> None:
    """Stage the pages anew."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.is_file() and path.suffix != ".md":
            _copy(path.relative_to(ROOT).as_posix())
    for page in [*_written_pages(), *BESIDE]:
        _write(site_path(page), stage_page(page, (ROOT / page).read_text(encoding="utf-8")))
    for name, text in api_pages().items():
        _write(name, text)


def _written_pages() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


def site_path(path: str) -> str:
    """Return the path of a file of the repository in the site: that in docs/, or else the same."""
    return path.removeprefix("docs/")


def stage_page(page: str, text: str) -> str:
    """Return a page as the site shows it: links turned, prompts and transcripts marked as such."""
    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(_code(part) if i % 2 else _prose(page, part) for i, part in enumerate(parts))


def _code(block: str) -> str:
    block = re.sub(r"  # doctest: .*$", "", block, flags=re.MULTILINE)
    block = re.sub(r"^```python\n(?=>>> )", "```pycon\n", block)
    return re.sub(r"^```\n(?=\$ )", "```console\n", block)


def _prose(page: str, text: str) -> str:
    def turn(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        if not (ROOT / target).is_file():
            return match[0]  # the build refuses it
        if not target.endswith(".md"):
            _copy(target)
        return match[1] + posixpath.relpath(site_path(target), posixpath.dirname(site_path(page)) or ".")

    return _LINK.sub(turn, text)


def _copy(path: str) -> None:
    target = STAGE / site_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / path, target)


def _write(path: str, text: str) -> None:
    target = STAGE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def api_pages() -> dict[str, str]:
    """Return the pages of the API reference: path in the site -> text in Markdown."""
    modules = [name for name in featx.__all__ if inspect.ismodule(getattr(featx, name))]
    pages = {"api/featx.md": _module_page("featx", _sections_at_the_top())}
    for name in modules:
        module = importlib.import_module(f"featx.{name}")
        pages[f"api/{name}.md"] = _module_page(f"featx.{name}", {"": list(module.__all__)})
    lines = ["# API reference", "", "All public names, each with its example. The examples run as tests.", ""]
    for path, names in [("featx", _sections_at_the_top())] + [(name, None) for name in modules]:
        module = importlib.import_module("featx" if path == "featx" else f"featx.{path}")
        lines += [f"## [{module.__name__}]({path}.md)", "", (module.__doc__ or "").split("\n\n")[0], ""]
        listed = [n for group in names.values() for n in group] if names else module.__all__
        lines += ["| name | |", "| --- | --- |"]
        lines += [f"| [`{n}`]({path}.md#{module.__name__}.{n}) | {_summary(getattr(module, n))} |" for n in listed]
        lines += [""]
    pages["api/index.md"] = "\n".join(lines)
    return pages


def _sections_at_the_top() -> dict[str, list[str]]:
    """Return the names of featx.__all__ in the groups that its comments make, without modules."""
    source = inspect.getsource(featx).split("__all__ = [")[1].split("]")[0]
    sections: dict[str, list[str]] = {}
    for line in source.splitlines():
        comment, name = re.match(r"\s*(?:# (.*)|\"(\w+)\",)?", line).groups()  # type: ignore[union-attr]
        if comment:
            sections[comment] = names = []
        elif name and not inspect.ismodule(getattr(featx, name)):
            names.append(name)
    return {title: names for title, names in sections.items() if names}


def _module_page(module: str, sections: dict[str, list[str]]) -> str:
    lines = [f"# {module}", "", inspect.getdoc(importlib.import_module(module)) or "", ""]
    for title, names in sections.items():
        lines += [f"## {title[:1].upper()}{title[1:]}", ""] if title else []
        lines += [line for name in names for line in (f"::: {module}.{name}", "")]
    return "\n".join(lines)


def _summary(thing: object) -> str:
    if isinstance(thing, dict | list | tuple | int | str | float):
        return ""
    first = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
