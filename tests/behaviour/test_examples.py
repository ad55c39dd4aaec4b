"""The scripts in examples/, run as a reader runs them: what they print is true, and nothing is left behind."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featx

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))

#: Runs a script as it is, and says at the end how many images went through a network.
COUNTING = """
import runpy, sys
from featx.session import Session
run, images = Session.run, []
def counted(self, pixels, *rest, **options):
    images.append(len(pixels))
    return run(self, pixels, *rest, **options)
Session.run = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("through a network:", sum(images))
"""


def run(name, tmp_path, *arguments, through=()):
    """Run a script in an empty folder with every cache elsewhere; give what it printed."""
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home, tmp_path / "tmp"):
        folder.mkdir(exist_ok=True)
    settings = {"HOME": home, "XDG_CACHE_HOME": home, "XDG_DATA_HOME": home, "FEATX_CACHE": home / "features"}
    settings |= {"TMPDIR": tmp_path / "tmp"}
    # One thread for linear algebra: on busy cores the threads of BLAS wait for each other longer than they work.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", *through, EXAMPLES / name, *map(str, arguments)],
        env={**os.environ, **{name: str(value) for name, value in settings.items()}, **threads, "PYTHONPATH": paths},
        cwd=work,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(work.iterdir()) == list((tmp_path / "tmp").iterdir()) == []
    assert not (home / "features").exists()  # a cache that was asked for is in the place that was asked for
    return done.stdout


def number(pattern, text):
    """Find the one number that a pattern's group holds."""
    (found,) = re.findall(pattern, text)
    return float(found)


def test_ten_lines_are_ten_and_tell_clothes_apart(tmp_path):
    tree = ast.parse((EXAMPLES / "pipeline_in_ten_lines.py").read_text(encoding="utf-8"))
    assert len(tree.body) - 1 == 10  # the docstring is not one of them
    assert all(node.lineno == node.end_lineno for node in tree.body[1:])
    accuracy = number(r"accuracy on 150 of 600 images, left out: (\S+)", run("pipeline_in_ten_lines.py", tmp_path))
    assert accuracy > 0.78  # the demo's head on raw pixels


@pytest.mark.heavy
def test_a_search_embeds_each_image_once_for_each_kind_of_features(tmp_path):
    text = run("search_backbones.py", tmp_path)
    assert "18 candidates x 5 folds, 6 kinds of features of 225 images" in text
    assert number(r"first run: embedded (\d+)", text) == 6 * 225
    assert number(r"second run: embedded (\d+)", text) == 0
    assert number(r"accuracy of the best on 75 images, left out: (\S+)", text) > 0.7
    rows = re.findall(r"(float32|int8) +[\d.]+ +([\d.]+) ", text)
    assert {precision for precision, _ in rows} == {"float32", "int8"}
    assert len(rows) == 6
    assert len({accuracy for _, accuracy in rows}) > 1  # not one network under two names


@pytest.mark.heavy
def test_a_search_of_a_folder_that_is_run_again_puts_no_image_through_a_network(tmp_path):
    X, y = featx.samples.load_fashion_mnist("test")
    folder, cache = tmp_path / "clothes", tmp_path / "cache"
    for i in range(0, 120, 2):  # four classes
        (folder / y[i]).mkdir(parents=True, exist_ok=True)
        (folder / y[i] / f"{i}.png").write_bytes(X[i])
    first, again = (run("search_backbones.py", tmp_path, folder, cache, through=("-c", COUNTING)) for _ in range(2))
    canonical = 2  # every process checks every network with one image of its own
    assert number(r"first run: embedded (\d+)", first) == 6 * 45
    assert number(r"through a network: (\d+)", first) == 6 * 45 + 15 + canonical  # 15 are left out for the test
    assert number(r"first run: embedded (\d+)", again) == number(r"second run: embedded (\d+)", again) == 0
    assert number(r"through a network: (\d+)", again) <= canonical
    accuracies = [re.findall(r"0\.\d{3}", text) for text in (first, again)]
    assert accuracies[0] == accuracies[1]


@pytest.mark.heavy
def test_images_tell_of_houses_what_columns_do_not(tmp_path):
    text = run("images_and_columns.py", tmp_path)
    columns, images, both = (
        number(rf"{name} +mean absolute percentage error (\S+)", text) for name in ("columns", "images", "both")
    )
    assert both < columns - 0.03
    assert both < images - 0.03
    assert 0.05 < both < 0.25  # the noise alone is a tenth
    gain, error = re.search(r"images take (\S+) \+- (\S+) off the error", text).groups()
    assert float(gain) > 3 * float(error)
    assert abs(float(gain) - (columns - both)) < 0.002


@pytest.mark.heavy
def test_houses_come_from_a_folder_as_well(tmp_path):
    draw = "import sys, pathlib, runpy; sys.path.insert(0, sys.argv[1]); import images_and_columns as p; "
    draw += "out = pathlib.Path(sys.argv[2]); (out / 'frontal').mkdir(parents=True); table = p.draw_houses(60); "
    draw += "[(out / 'frontal' / f'{i}.jpg').write_bytes(photo) for i, photo in enumerate(table.photo, 1)]; "
    draw += "table.drop(columns='photo').to_csv(out / 'HousesInfo.txt', sep=' ', header=False, index=False)"
    folder = tmp_path / "houses"
    command = [sys.executable, "-B", "-c", draw, EXAMPLES, folder]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    text = run("images_and_columns.py", tmp_path, folder)
    assert number(r"both +mean absolute percentage error (\S+)", text) < 1


@pytest.mark.heavy
def test_a_network_of_ones_own_is_a_backbone_as_any_other(tmp_path):
    text = run("custom_backbone.py", tmp_path)
    assert number(r"wrapped: cosine (\S+),", text) > 0.9999
    rows = dict(re.findall(r"^(\S.*?)  +\d+ features  accuracy (\S+)$", text, re.MULTILINE))
    averaged, by_place, bundled = (
        float(rows[name]) for name in ("gabor, averaged", "gabor, by place", "efficientnet_lite0")
    )
    assert 0.3 < averaged < by_place  # ten classes: chance is 0.1
    assert by_place > 0.7
    assert bundled > 0.78


@pytest.mark.heavy
def test_a_temperature_mends_what_a_few_images_say_of_certainty(tmp_path):
    text = run("few_shot.py", tmp_path)
    rows = re.findall(r"^ +(\d+)  (\w+) +(\S+) \+- \S+  (\S+) \+- \S+ +(\S+)$", text, re.MULTILINE)
    found = {(int(shots), name): tuple(map(float, values)) for shots, name, *values in rows}
    assert sorted(found) == [(5, "calibrated"), (5, "plain"), (10, "calibrated"), (10, "plain")]
    for shots in (5, 10):
        (accuracy, error, loss), (plain, plain_error, plain_loss) = found[shots, "calibrated"], found[shots, "plain"]
        assert accuracy == plain > 0.65  # the temperature changes no answer
        assert error < plain_error / 2
        assert loss < plain_loss
    assert found[10, "plain"][0] > found[5, "plain"][0]


def test_every_script_is_run_above_and_stands_in_the_readme():
    calls = list(ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8"))))
    ran = {
        node.args[0].value
        for node in calls
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "run"
        and isinstance(node.args[0], ast.Constant)
    }
    assert sorted(ran) == NAMES
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[`(\w+\.py)`\]", readme, re.MULTILINE)) == NAMES


def test_scripts_take_from_featx_only_what_it_offers():
    for name in NAMES:
        for node in ast.walk(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "featx":
                public = importlib.import_module(node.module).__all__
                assert {alias.name for alias in node.names} <= set(public), name
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "featx":
                assert node.attr in featx.__all__, name


def test_the_gallery_has_a_page_for_every_script_with_its_code():
    """`python tools/make_gallery.py` writes the pages anew."""
    gallery = ROOT / "docs" / "gallery"
    index = (gallery / "index.md").read_text(encoding="utf-8")
    for name in NAMES:
        page = (gallery / name).with_suffix(".md")
        assert f"({page.name})" in index
        text = page.read_text(encoding="utf-8")
        assert f"```python\n{(EXAMPLES / name).read_text(encoding='utf-8')}```" in text
        images = re.findall(r"!\[[^]]*\]\((\S+)\)", text)
        assert all((gallery / image).stat().st_size < 50_000 for image in images)
