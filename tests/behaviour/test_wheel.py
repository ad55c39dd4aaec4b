"""The built wheel, installed elsewhere: what a user gets."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT], check=True, capture_output=True, timeout=300
    )
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.heavy
def test_the_wheel_carries_the_backbone_the_sample_and_every_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in ("models/efficientnet_lite0.onnx", "models/LICENSE-APACHE-2.0", "models/NOTICE", "py.typed"):
        assert f"featx/{wanted}" in names
    assert "featx/samples/fashion_mnist.zip" in names
    assert "featx/serve/page.html" in names
    assert any(name.endswith("licenses/featx/samples/LICENSE-fashion-mnist") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/", "tools/", "examples/")) for name in names)
    assert wheel.stat().st_size < 25_000_000


@pytest.mark.heavy
def test_the_installed_wheel_embeds_without_network_torch_or_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
        timeout=120,
    )
    code = """
import socket, sys
def refuse(*_, **__): raise OSError("no network here")
socket.socket.connect = refuse
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "pandas", "matplotlib", "pyarrow"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
import featx
from featx.backbones import open_backbone
X, y = featx.samples.load_fashion_mnist("test")
print(featx.__file__)
print(open_backbone("efficientnet_lite0").path)
print(featx.FeatureExtractor().transform(X[:3]).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    module, backbone, shape = done.stdout.splitlines()
    assert Path(module) == site / "featx" / "__init__.py"
    assert Path(backbone) == site / "featx" / "models" / "efficientnet_lite0.onnx"
    assert shape == "(3, 1280)"


@pytest.mark.heavy
def test_both_distributions_are_fit_for_an_index_and_hold_what_the_readme_shows(wheel, tmp_path):
    pytest.importorskip("twine")
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (sdist,) = tmp_path.iterdir()
    check = [sys.executable, "-m", "twine", "check", "--strict", wheel, sdist]  # the description renders
    done = subprocess.run(check, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in target}
    assert linked >= {"docs/why.png", "benchmarks/RESULTS.md", "CONTRIBUTING.md"}
    assert {"README.md", "Makefile", "featx/samples/fashion_mnist.zip", *linked} <= names


def test_the_checkout_finds_its_backbone_beside_the_package():
    code = "import featx.backbones as b; print(b.open_backbone('efficientnet_lite0').path)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(done.stdout.strip()) == ROOT / "models" / "efficientnet_lite0.onnx"
