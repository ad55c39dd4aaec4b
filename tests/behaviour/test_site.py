"""The documentation site: complete, true to the code, and with recipes and a tutorial that run."""

import ast
import importlib.util
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import featx
from featx.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def load_tool():
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def navigation():
    """Return the paths of all pages in the navigation."""
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    nav = tomllib.loads(text)["project"]["nav"]
    return set(re.findall(r"'([^']+\.md)'", str(nav)))


@pytest.fixture(scope="module")
def api():
    return load_tool().api_pages()


def test_the_reference_has_every_public_name(api):
    modules = [name for name in featx.__all__ if inspect.ismodule(getattr(featx, name))]
    wanted = {f"featx.{name}" for name in set(featx.__all__) - set(modules)}
    wanted |= {f"featx.{module}.{name}" for module in modules for name in getattr(featx, module).__all__}
    assert set(re.findall(r"^::: (\S+)", "\n".join(api.values()), re.MULTILINE)) == wanted
    assert set(api) <= navigation()


def test_the_pages_of_the_navigation_exist(api):
    assert {
        page for page in navigation() - set(api) if not ((DOCS / page).is_file() or (ROOT / page).is_file())
    } == set()


def test_links_to_files_outside_docs_are_turned():
    text = "[a](../models/README.md) [b](gpu.md#x) ```\n[c](d.md)\n```\n"
    assert load_tool().stage_page("docs/features.md", text).startswith("[a](models/README.md) [b](gpu.md#x)")


def test_the_table_of_extras_is_that_of_pyproject():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    expected = {
        extra: sorted({re.match(r"[\w-]+", one)[0] for one in packages})
        for extra, packages in extras.items()
        if extra not in ("test", "test-all", "dev")
    }
    rows = re.findall(
        r"^\| `([\w-]+)` \| ([^|`]+) \| [\d.]+ [MG]B \| [^|]+ \|$", (DOCS / "install.md").read_text(), re.MULTILINE
    )
    assert {extra: sorted(packages.split(", ")) for extra, packages in rows} == expected


def test_each_message_of_troubleshooting_stands_in_the_code():
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("featx/**/*.py"))
    code = re.sub(r"\"\s*\n\s*f?\"", "", code)  # a message may go on in the next line
    assert [row for row in rows for part in re.findall("`([^`]+)`", row) if part not in code] == []


def test_each_guarantee_links_to_its_tests():
    promises = (DOCS / "guarantees.md").read_text(encoding="utf-8").split("## Limits")[0]
    bullets = re.findall(r"^- .*$", promises, re.MULTILINE)
    assert len(bullets) >= 9
    for bullet in bullets:
        links = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", bullet)
        assert links, bullet
        assert [link for link in links if not (ROOT / link).is_file()] == []


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_recipes_are_python():
    assert len([ast.parse(block) for block in blocks("recipes.md")]) >= 5


@pytest.mark.heavy
def test_recipes_for_tensorflow_and_torch_run_on_stand_ins():
    import numpy as np
    from PIL import Image

    embed = next(block for block in blocks("recipes.md") if "as_numpy_iterator" in block)
    fit = next(block for block in blocks("recipes.md") if "len(dataset)" in block)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 40, 40, 3), dtype=np.uint8)
    pixels[:12, ..., 0] //= 4
    classes = np.repeat([0, 1], 12)

    class Dataset:
        def as_numpy_iterator(self):
            return zip([*pixels[:12], *pixels[12:, ::2]], classes, strict=True)  # of two sizes

    names = {}
    exec(embed, names)
    features, got = names["embed"](Dataset(), featx.FeatureExtractor())
    assert features.shape == (24, 1280)
    assert got.tolist() == classes.tolist()
    names = {"dataset": [(Image.fromarray(image), str(label)) for image, label in zip(pixels, classes, strict=True)]}
    exec(fit, names)
    assert names["result"].n_images == 24


@pytest.mark.heavy
def test_the_tutorial_runs_as_written(tmp_path, monkeypatch, capsys):
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    commands = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).splitlines()
    assert len([command for command in commands if command]) == 8
    monkeypatch.chdir(tmp_path)
    for command in filter(None, commands):
        program, *words = shlex.split(command)
        assert program == "featx"
        assert main(words) in ((0, 1) if words[0] == "audit" else (0,)), (command, capsys.readouterr().err)
    printed = capsys.readouterr().out
    for line in ("accuracy 0.839 (95 % interval", "accuracy           0.837"):
        assert line in printed
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 301
    assert {"report.html", "clothes.onnx", "why"} <= {path.name for path in tmp_path.iterdir()}
