"""What the house promises about itself."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featx

ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in pkgutil.walk_packages(featx.__path__, "featx.") if "__main__" not in module.name]


def test_all_holds_every_public_name_and_nothing_else():
    public = {
        name
        for name, value in vars(featx).items()
        if not name.startswith("_") and not (inspect.ismodule(value) and name not in ("heads", "samples"))
    }
    public -= {"annotations", "TYPE_CHECKING", "Any"}
    assert public | set(featx._LATER) == set(featx.__all__)
    assert set(featx.__all__) <= set(dir(featx))
    assert all(getattr(featx, name) is not None for name in featx.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        featx.nothing  # noqa: B018


def test_heads_wait_until_they_are_asked_for():
    code = "import sys, featx; print('featx.heads' in sys.modules, 'sklearn.ensemble' in sys.modules); featx.make_head"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("name", featx.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    thing = getattr(featx, name)
    assert inspect.getdoc(thing)
    if not inspect.ismodule(thing) and name not in ("Embedded", "load", "read_info"):
        assert ">>> " in inspect.getdoc(thing), name


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
