"""Hundreds of images that are none, in every format: one row each, no crash, no hang, and memory within bounds."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
from PIL import Image, features
from skimage import data

from featx import dataset
from tests.dataset.dataset_tools import rows

COFFEE = Image.fromarray(data.coffee()[::4, ::4])
FORMATS = {
    **{"png": {}, "jpg": {"format": "JPEG"}, "gif": {}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "ppm": {}},
    **{"tga": {}, "ico": {}, "webp": {}, "jp2": {}, "avif": {}},
}
MOST_MB = 2000


def encode(suffix):
    file = io.BytesIO()
    options = dict(FORMATS[suffix])
    COFFEE.save(file, options.pop("format", None) or Image.registered_extensions()[f".{suffix}"], **options)
    return file.getvalue()


def mutate(content, generator):
    """Cut, flip, repeat, overwrite or swap bytes, most often near the beginning, where headers are."""
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 3, 10))):
        at = int(generator.random() ** 3 * len(content))
        n = generator.choice((1, 4, 100))
        match generator.randrange(6):
            case 0:
                content = content[: max(at, 4)]
            case 1:
                content[at : at + 1] = bytes([generator.randrange(256)])
            case 2:
                content[at : at + n] = bytes([generator.choice((0, 255))]) * n
            case 3:
                content[at:at] = content[at : at + n]
            case 4:
                del content[at : at + n]
            case 5:
                content[at : at + 4] = struct.pack(generator.choice(("<I", ">I")), generator.choice((2**31, 65535, 0)))
    return bytes(content)


def bomb(side, bits):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    body = zlib.compress(bytes((side * bits // 8 + 1) * side if side < 50_000 else 100), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def torture(tmp_path_factory):
    """The set, and how many rows it must give."""
    folder, generator, n = tmp_path_factory.mktemp("torture"), random.Random(0), 0
    for suffix in FORMATS:
        if suffix in ("webp", "avif") and not features.check(suffix):
            continue
        whole = encode(suffix)
        (folder / suffix).mkdir()
        (folder / suffix / f"whole.{suffix}").write_bytes(whole)
        for i in range(24):
            (folder / suffix / f"{i:02d}.{suffix}").write_bytes(mutate(whole, generator))
        n += 25
    odd = folder / "odd"
    odd.mkdir()
    files = {
        **{"empty.png": b"", "text.jpg": b"<html>404</html>", "noise.gif": generator.randbytes(9999)},
        **{"bomb.png": bomb(30_000, 1), "large.png": bomb(12_000, 8), "overflow.png": bomb(2**31 - 1, 1)},
        **{"strip.png": bomb(1, 8), "jpeg-named.png": encode("jpg"), "png-named.jpg": encode("png")},
    }
    for name, content in files.items():
        (odd / name).write_bytes(content)
    for name in (
        b"caf\xe9.png",
        "写真.png".encode(),
        b"a\nb.png",
        b'quo"te.png',
        b"sp ace.png",
        b"-dash.png",
        b"x" * 250 + b".png",
    ):
        with open(os.path.join(os.fsencode(odd), name), "wb") as file:
            file.write(encode("png"))
    os.mkfifo(odd / "pipe.png")
    os.symlink("itself.png", odd / "itself.png")
    os.symlink("nowhere.png", odd / "nowhere-to.png")
    os.symlink("/dev/zero", odd / "endless.png")
    os.symlink("..", odd / "round")
    (odd / "vanishing.png").write_bytes(encode("png"))
    (odd / "unreadable.png").write_bytes(encode("png"))
    os.chmod(odd / "unreadable.png", 0)
    return folder, n + len(files) + 7 + 6


CODE = """
    import json, os, sys
    import featx
    from featx import dataset

    class Vanish(dataset.Events):
        def begin(self, task, total, done=0, *, unit="image"):
            vanishing = os.path.join(sys.argv[1], "odd", "vanishing.png")
            if os.path.exists(vanishing):
                os.unlink(vanishing)

    extractor = featx.FeatureExtractor(layer="stem", n_threads=1, device="cpu")  # else two of the largest may meet
    done = dataset.embed(sys.argv[1], sys.argv[2], extractor, shard_size=50, n_jobs=int(sys.argv[3]), events=Vanish())
    # of this program alone; ru_maxrss begins with what its parent had
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
    print(json.dumps({"done": done.to_dict(), "peak": peak}))
"""


@pytest.mark.heavy
def test_every_image_of_the_torture_set_is_one_row(torture, tmp_path):
    folder, n = torture
    assert n > 200
    for out, n_jobs in (("first", "1"), ("second", "2")):
        arguments = [str(folder), str(tmp_path / out), n_jobs]
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(CODE), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        assert "Error" not in ran.stderr
        told = json.loads(ran.stdout)
        assert told["peak"] < MOST_MB
    (folder / "odd" / "vanishing.png").touch()
    assert told["done"]["n_images"] in (n, n - 1)  # the second run did not see what vanished
    found = {out: {row["key"]: row for row in rows(tmp_path / out)} for out in ("first", "second")}
    assert len(rows(tmp_path / "first")) == len(found["first"]) == n
    vectors = dataset.open(tmp_path / "first")
    assert np.isfinite(vectors.X).all()
    assert len(vectors) + len(list(vectors.failures())) == n
    gone = found["first"].pop("odd/vanishing.png")
    assert (gone["status"], gone["reason"][:12]) == ("failed", "no such file")
    assert found["first"] == found["second"]  # reasons as well
    for row in found["first"].values():
        assert (row["status"] == "failed") == bool(row["reason"])
    whole = [key for key in found["first"] if "/whole." in key]
    assert all(found["first"][key]["status"] == "ok" for key in (*whole, "odd/a\nb.png", "odd/jpeg-named.png"))
    failed = ("empty", "text", "noise", "bomb", "overflow", "pipe", "itself", "nowhere-to", "endless")
    for key, row in found["first"].items():
        if key.startswith("odd/") and key[4:].partition(".")[0] in failed:
            assert row["status"] == "failed", key
