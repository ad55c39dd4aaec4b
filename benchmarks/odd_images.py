"""Damage images at random and decode them, and measure the peak memory of images of 49 megapixels.

    python benchmarks/odd_images.py --seconds 60
    python benchmarks/odd_images.py --peak

Each mutant must give an image or a reason, and no line on stderr. A crash ends the program.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from featx.images.decode import UnreadableError, decode
from tests.images import variant_tools as variants

SIDE = 7000
LARGE = {
    "RGB PNG": ("RGB", "PNG", {"compress_level": 1}),
    "RGBA PNG": ("RGBA", "PNG", {"compress_level": 1}),
    "grey and alpha PNG": ("LA", "PNG", {"compress_level": 1}),
    "palette PNG, one colour transparent": ("P", "PNG", {"transparency": 3}),
    "palette GIF, one colour transparent": ("P", "GIF", {"transparency": 3}),
    "16-bit grey PNG": ("I;16", "PNG", {"compress_level": 1}),
    "RGBA TIFF, LZW": ("RGBA", "TIFF", {"compression": "tiff_lzw"}),
    "RGB WebP": ("RGB", "WEBP", {"lossless": True}),
    "RGBA WebP": ("RGBA", "WEBP", {"lossless": True}),
}
PEAK = """
import re, sys
from featx.images.decode import decode
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
data = open(sys.argv[1], "rb").read()
before = peak()
decode(data)
print((peak() - before) // 1024)
"""


def measure_peaks() -> None:
    """Print the memory that decoding takes beyond the encoded image, in a process for each."""
    for name, (mode, suffix, options) in LARGE.items():
        image = Image.new(mode, (SIDE, SIDE), 3 if mode in ("P", "I;16") else (200, 10, 30, 100)[: len(mode)])
        if mode == "P":
            image.putpalette([v for v in range(256) for _ in range(3)])
        with tempfile.NamedTemporaryFile() as file:
            image.save(file, suffix, **options)
            file.flush()
            result = subprocess.run([sys.executable, "-c", PEAK, file.name], capture_output=True, text=True, check=True)
        print(f"{name}: {result.stdout.strip()} MB")


def list_images() -> list[bytes]:
    """Return sound images of all formats."""
    kinds = (variants.png_variants, variants.bmp_variants, variants.jpeg2000_variants, variants.tiff_variants)
    images = [variant.data for kind in kinds for variant in kind()]
    writers = [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {})]
    writers += [("AVIF", {}), ("PPM", {}), ("TGA", {}), ("ICO", {}), ("TIFF", {"compression": "jpeg"})]
    writers += [("TIFF", {"compression": name}) for name in ("group3", "group4", "tiff_lzw")]
    for suffix, options in writers:
        file = io.BytesIO()
        image = Image.fromarray(variants.RGB)
        (image.convert("1") if "group" in str(options) else image).save(file, suffix, **options)
        images += [file.getvalue()] * 50
    return images


def damage(data: bytes, rng: random.Random) -> bytes:
    """Overwrite some bytes, of the header half of the time, and cut off the end of some images."""
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(mutant), 200) if rng.random() < 0.5 else len(mutant))
        mutant[place] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(mutant[: rng.randrange(1, len(mutant))] if rng.random() < 0.2 else mutant)


def fuzz(seconds: float, seed: int) -> None:
    """Decode mutants, and print how many were read, the longest time, and the lines that libraries wrote."""
    rng, images = random.Random(seed), list_images()
    n = n_read = 0
    longest, odd = 0.0, set()
    with tempfile.TemporaryFile() as lines:
        stderr = os.dup(2)
        faulthandler.enable(os.fdopen(stderr, "w"))
        os.dup2(lines.fileno(), 2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            mutant = damage(rng.choice(images), rng)
            start = time.process_time()
            try:
                decode(mutant)
                n_read += 1
            except UnreadableError as error:
                if len(str(error)) > 500 or "0x" in str(error):
                    odd.add(str(error))
            longest = max(longest, time.process_time() - start)
            n += 1
        os.dup2(stderr, 2)
        lines.seek(0)
        n_lines = lines.read().count(b"\n")
    print(f"{n:,} mutants: {n_read:,} read, {n - n_read:,} refused; longest {longest:.2f} s of processor time")
    print(f"{n_lines} lines on stderr; {len(odd)} reasons without end or with an address")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", action="store_true")
    options = parser.parse_args()
    if options.peak:
        measure_peaks()
    else:
        fuzz(options.seconds, options.seed)
