"""Figures in README and docs stand in benchmarks/RESULTS.md, whose index names all of its sections."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
#: Pages of measured figures. docs/gallery shows what programs print, and other tests run these.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Figures that are no measurements: page -> figures, with the reason.
NOT_MEASURED = {
    "docs/backbones.md": {"0.9999"},  # the bound of the comparison with the float32 file
    "docs/gpu.md": {"0.9999998"},  # rounded down from 0.99999982
}


def find_figures(text):
    """Return the figures of a page's sentences and tables: fractions of three decimals or more, and percentages."""
    text = re.sub(r"^ *```.*?^ *```|^    .*$|`[^`]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)  # addresses
    return re.findall(r"(?<![\w.,])\d*\.\d{3,}(?![\w.])|(?<![\w.])\d+(?:\.\d+)? ?%", text)


def is_measured(figure):
    """Check that RESULTS has a figure; 93.5 % may stand there as 0.935, and 0.71 as .71."""
    number = figure.rstrip(" %")
    forms = {number.lstrip("0")}
    if number != figure:
        forms |= {
            f"{float(number) / 100:.{digits}f}".lstrip("0")
            for digits in (2, 3, 4)
            if digits >= 2 + len(number.partition(".")[2])
        }
    return any(re.search(rf"(?<!\d)(?<!\d[.,])0?{re.escape(form)}(?!\d|\.\d)", RESULTS) for form in forms)


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_every_figure_of_a_page_stands_in_the_results(path):
    figures = set(find_figures(path.read_text(encoding="utf-8")))
    known = NOT_MEASURED.get(str(path.relative_to(ROOT)), set())
    assert sorted(figure for figure in figures - known if not is_measured(figure)) == []


def test_a_figure_that_nobody_measured_is_found():
    assert find_figures("accuracy 0.1234 and 12.3 %, `0.9999`, [a](https://b/0.777)") == ["0.1234", "12.3 %"]
    assert not is_measured("0.12345")
    assert is_measured("93.5 %")


@pytest.mark.heavy
def test_every_chart_finds_its_figures_in_the_results(monkeypatch, tmp_path):
    """The charts of docs/benchmarks.md are drawn from tables, which may move but not vanish."""
    spec = importlib.util.spec_from_file_location("draw_results", ROOT / "tools" / "draw_results.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "DOCS", tmp_path)
    tool.main()
    drawn = {path.name for path in tmp_path.iterdir()}
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"\]\((\w+\.png)\)", page))
    with pytest.raises(SystemExit, match="no table 'nothing'"):
        tool.read_table("Text", "nothing")
    with pytest.raises(SystemExit, match="no column \\['nothing'\\]"):
        tool.read_table("Text", "sentences to fit | TF-IDF", "encoder", "nothing")


def test_the_index_of_the_results_names_every_section():
    heads = re.findall(r"^## (.*)$", RESULTS, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    (index,) = re.findall(r"^Contents: .*$", RESULTS, re.MULTILINE)
    assert re.findall(r"\(#(.*?)\)", index) == anchors
