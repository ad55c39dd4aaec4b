"""Check what the house promises about itself: names, words, imports and the map in CONTRIBUTING."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import featx

ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in pkgutil.walk_packages(featx.__path__, "featx.") if "__main__" not in module.name]


def test_all_is_complete():
    eager = {name for name, value in vars(featx).items() if not (name.startswith("_") or inspect.ismodule(value))} - {
        "annotations",
        "TYPE_CHECKING",
        "Any",
    }
    assert eager | set(featx._LAZY) == set(featx.__all__)
    assert len(featx.__all__) == len(set(featx.__all__))
    assert set(featx.__all__) <= set(dir(featx))
    assert all(getattr(featx, name) is not None for name in featx.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        featx.nothing  # noqa: B018


@pytest.mark.parametrize(
    "name", [name for name in MODULES if not any(part.startswith("_") for part in name.split(".")[1:])]
)
def test_the_names_that_a_module_exports_are_there(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [one for one in exported if not hasattr(module, one)] == []


def test_heads_wait_until_they_are_asked_for():
    code = "import sys, featx; print('featx.heads' in sys.modules, 'sklearn.ensemble' in sys.modules); featx.make_head"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("name", featx.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    thing = getattr(featx, name)
    assert inspect.getdoc(thing)
    if not inspect.ismodule(thing) and name not in ("Embedded", "load", "read_info"):
        assert re.search(r">>> |See Also\n-+\nfeatx\.\w+ : Makes it; its example", inspect.getdoc(thing)), name


def test_every_error_stands_in_the_tree_at_the_top():
    tree = featx.errors.__doc__
    for name in featx.errors.__all__:
        if name != "Failure":
            assert re.search(rf"\b{name}\b", tree), name


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_without_an_extra_and_says_what_it_is(module):
    assert importlib.import_module(module).__doc__


def test_the_version_is_in_the_changelog():
    assert f"## [{featx.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_model_card_gives_the_digest_of_the_file():
    import hashlib

    content = (ROOT / "models" / "efficientnet_lite0.onnx").read_bytes()
    card = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in card
    assert featx.backbones.open_backbone("efficientnet_lite0").identity in card


def test_the_sample_is_stratified_and_under_a_megabyte():
    for split, per_class in (("train", 60), ("test", 30)):
        X, y = featx.samples.load_fashion_mnist(split)
        counts = {label: int((y == label).sum()) for label in set(y.tolist())}
        assert len(X) == len(set(X)) == 10 * per_class
        assert set(counts.values()) == {per_class}
    folder = ROOT / "featx" / "samples"
    assert (folder / "fashion_mnist.zip").stat().st_size < 1_000_000
    assert "MIT License" in (folder / "LICENSE-fashion-mnist").read_text()


#: A docstring starts with a verb that says what the code does, or with a noun that says what it is.
BANNED = {
    *("what", "which", "whether", "where", "how", "when", "who", "whose"),
    *(verb + ending for verb in ("give", "tell", "hear", "say") for ending in ("", "s")),
}
SOURCES = sorted(ROOT.glob("featx/**/*.py"))
IDS = [str(path.relative_to(ROOT)) for path in SOURCES]


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_docstrings_start_in_plain_english(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        first = re.match(r"\W*(\w*)", text or "")[1].lower()
        assert first not in BANNED, f"{getattr(node, 'name', 'module')}: {text.splitlines()[0]}"


@pytest.mark.parametrize("pattern", ["featx/**/*.py", "featx/**/*.html", "docs/*.md", "examples/**/*", "*.md"])
def test_the_word_is_image(pattern):
    paths = [path for path in ROOT.glob(pattern) if path.is_file() and path.name != "CHANGELOG.md"]
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8").replace("n_pictures", "")  # in manifests written until 2026-11
        assert not re.search("picture", text, re.IGNORECASE), path


def imports_of(path, modules):
    """Return the modules of featx that a file imports, inside functions as well, but for type checkers alone."""
    found = set()
    skipped = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(id(inner) for inner in ast.walk(node))
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in modules else node.module)
    return found & modules


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_make_no_circle():
    modules = {module_name(path) for path in SOURCES}
    graph = {module_name(path): imports_of(path, modules) for path in SOURCES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def layers():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [re.findall(r"\w+", row) for row in rows]


def test_the_map_in_contributing_shows_the_layers_as_they_stand():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]
    rows = [re.findall(r"\w+", line.partition("  ")[0]) for line in drawn.splitlines() if line.strip()]
    assert rows == layers()
    there = {path.stem for path in (ROOT / "featx").glob("*.py")} | {
        path.parent.name for path in ROOT.glob("featx/*/__init__.py")
    }
    assert {name for row in rows for name in row} == there - {"__init__"}


def test_importing_featx_is_light():
    code = "import sys, featx; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"numpy", "sklearn", "onnx", "onnxruntime", "PIL", "tqdm", "scipy", "skops", "joblib"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/README.md", "models/README.md"])
def test_links_of_pages_outside_docs_lead_to_files(page):
    path = ROOT / page
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short_and_names_the_two_commands_to_start_with():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    first_screen = "\n".join(lines[:25])
    assert re.search(r"^    make demo\b", first_screen, re.MULTILINE)
    assert re.search(r"^    make test\b", first_screen, re.MULTILINE)
