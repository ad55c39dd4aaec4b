"""Ten minutes of damaged images, archives, pipelines and backbones: each is read, or refused with a reason.

FEATX_FUZZ_SECONDS sets another length. Requests are fuzzed by `tests/serve/test_soak.py`.
"""

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import featx
from featx.backbones.file import read_backbone
from featx.errors import FeatxError, UnreadableError
from featx.images.decode import decode
from featx.samples import load_fashion_mnist
from featx.sources import list_images

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]

SECONDS = float(os.environ.get("FEATX_FUZZ_SECONDS", "600"))
#: Longest time for one input; a machine under load takes a few times as long as the 2 s that was measured.
MAX_SECONDS = 20
IMAGES, LABELS = load_fashion_mnist("test")


@st.composite
def mutants(draw, seeds):
    """Take a file, change, insert or remove some bytes, and perhaps cut it off; damage is likelier at both ends."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 8))):
        n = len(content)
        if not n:
            break
        where = draw(
            st.one_of(st.integers(0, min(n - 1, 300)), st.integers(0, n - 1), st.integers(max(0, n - 300), n - 1))
        )
        size = draw(st.sampled_from([1, 1, 1, 2, 4, 16]))
        kind = draw(st.sampled_from(["change", "change", "extreme", "insert", "remove", "repeat"]))
        if kind == "change":
            content[where : where + size] = draw(st.binary(min_size=size, max_size=size))
        elif kind == "extreme":
            content[where : where + size] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"])) * size
        elif kind == "insert":
            content[where:where] = draw(st.binary(max_size=64))
        elif kind == "remove":
            del content[where : where + 4 * size]
        else:
            content[where:where] = content[where : where + 16 * size]
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 3)) == 0 else content)


def fuzz(share, seeds, read, capsys):
    """Read mutants for a share of the time; print how many were read and refused, and the longest time."""
    end, counts, longest = time.monotonic() + share * SECONDS, {True: 0, False: 0}, 0.0

    @hypothesis.settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(mutants(seeds))
    def try_one(content):
        nonlocal longest
        began = time.monotonic()
        counts[bool(read(content))] += 1
        took = time.monotonic() - began
        longest = max(longest, took)
        assert took < MAX_SECONDS

    while time.monotonic() < end:
        try_one()
    with capsys.disabled():
        name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        print(
            f"\n{name}: {sum(counts.values())} mutants, {counts[False]} refused, longest {longest:.2f} s",
            file=sys.stderr,
        )


def check_reason(error, name=""):
    assert str(error)
    assert name in str(error)


def encode_all():
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    made = []
    for kind, mode, options in (
        *(
            (kind, "RGB", {})
            for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
        ),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (50, 40), 3)]}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "I;16", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ):
        stream = io.BytesIO()
        (rgb.convert("L").convert("I;16") if mode == "I;16" else rgb.convert(mode)).save(stream, kind, **options)
        made.append(stream.getvalue())
    return made


def test_images(capsys):
    def read(content):
        try:
            image = decode(content)
        except UnreadableError as error:
            check_reason(error)
            return False
        assert image.mode == "RGB"
        assert image.width * image.height > 0
        return True

    fuzz(0.4, encode_all(), read, capsys)


def archives():
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for i in range(6):
            for name, content in ((f"bag/{i}.png", IMAGES[i]), (f"bag/{i}.cls", b"bag")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(6):
            archive.writestr(f"bag/{i}.png", IMAGES[i])
    tar = plain.getvalue()
    return {
        "t.tar": tar,
        "t.zip": zipped.getvalue(),
        "t.tar.gz": gzip.compress(tar),
        "t.tar.bz2": bz2.compress(tar),
        "t.tar.xz": lzma.compress(tar),
    }


@pytest.mark.parametrize("name", archives())
def test_archives(name, tmp_path, capsys):
    def read(content):
        (tmp_path / name).write_bytes(content)
        try:
            listing = list_images(tmp_path / name)
        except FeatxError as error:
            check_reason(error, name)
            return False
        for item in listing.items:
            try:
                item.fetch()
            except FeatxError as error:
                check_reason(error)
        return True

    fuzz(0.06, [archives()[name]], read, capsys)


@pytest.mark.parametrize("name", [name for name in archives() if ".tar" in name])
def test_a_tar_cut_anywhere_is_never_a_shorter_one(name, tmp_path):
    whole = archives()[name]
    n = len(list_images(_write(tmp_path / name, whole)))
    for end in range(0, len(whole), 1 + len(whole) // 400):
        try:
            listing = list_images(_write(tmp_path / name, whole[:end]))
        except FeatxError:
            continue
        assert len(listing) == n


def _write(path, content):
    path.write_bytes(content)
    return path


def test_pipelines(tmp_path, tiny_backbone, capsys):
    pipeline = make_pipeline(featx.FeatureExtractor(tiny_backbone, device="cpu"), LogisticRegression())
    featx.save(pipeline.fit(IMAGES[:60:2], LABELS[:60:2]), tmp_path / "m.featx")

    def read(content):
        try:
            with warnings.catch_warnings(action="ignore"):
                featx.load(_write(tmp_path / "m.featx", content))
        except FeatxError as error:
            check_reason(error, "m.featx")
            return False
        return True

    whole = (tmp_path / "m.featx").read_bytes()
    fuzz(0.05, [whole], read, capsys)

    def read_rewritten(content):
        """Read a pipeline with one member replaced, whose checksums are right."""
        name, _, content = content.partition(b"\n")
        rewritten = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(rewritten, "w") as new:
            for member in old.namelist():
                new.writestr(member, content if member.encode() == name else old.read(member))
        return read(rewritten.getvalue())

    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        seeds = [name.encode() + b"\n" + archive.read(name) for name in archive.namelist() if "onnx" not in name]
    fuzz(0.1, seeds, read_rewritten, capsys)


def test_backbones(tmp_path, tiny_backbone, capsys):
    def read(content):
        try:
            read_backbone(_write(tmp_path / "b.onnx", content))
        except FeatxError as error:
            check_reason(error, "b.onnx")
            return False
        return True

    fuzz(0.15, [tiny_backbone.read_bytes()], read, capsys)
