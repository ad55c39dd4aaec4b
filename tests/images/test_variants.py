"""Variants of TIFF, PNG, BMP, JPEG 2000, AVIF, TGA and PPM are read as independent decoders read them, or refused."""

import collections
import time

import numpy as np
import pytest

from featx.images.decode import UnreadableError, decode
from tests.images.variant_tools import (
    avif_variants,
    bmp_variants,
    jpeg2000_variants,
    other_variants,
    png_variants,
    tiff_variants,
)

#: First two words of the names of variants that may be refused; for all others that would be a loss.
MAY_BE_REFUSED = {
    *("tiff unfit", "tiff g32", "tiff la16", "tiff la8white", "tiff rgbax8"),
    *("tiff la8", "tiff la8pre"),  # in separate planes
    *(f"tiff g{n}bit{white}" for n in (6, 10, 12, 14) for white in ("", "white")),
    *("jp2 unfit", "jp2 premultiplied", "jp2 palette-swapped", "jp2 palette-sycc", "jp2 rgb", "bmp masks"),
}
#: Largest difference to the truth: a level for rounding, more for premultiplied alpha, YCbCr and AVIF.
TOLERANCE = {"avif": 3, "jp2": 3, "tiff": 3}


def check(variants):
    """Return the numbers of variants that are read and refused, and the longest time of one."""
    counts, wrong, longest = collections.Counter(), [], 0.0
    for variant in variants:
        suffix, kind, *_ = variant.name.split()
        start = time.perf_counter()
        try:
            seen = np.asarray(decode(variant.data)).astype(float)
        except UnreadableError as error:
            counts["refused"] += 1
            if f"{suffix} {kind}" not in MAY_BE_REFUSED or "damaged" in str(error):
                wrong.append(f"{variant.name}: {error}")
            continue
        finally:
            longest = max(longest, time.perf_counter() - start)
        counts["read"] += 1
        if variant.truth is None:
            wrong.append(f"{variant.name}: has no range, and was read")
        elif seen.shape != variant.truth.shape:
            wrong.append(f"{variant.name}: {seen.shape} instead of {variant.truth.shape}")
        elif (difference := np.abs(seen - variant.truth).max()) > TOLERANCE.get(suffix, 1):
            wrong.append(f"{variant.name}: differs by {difference:.0f}")
    assert not wrong, "\n".join(wrong[:20])
    return counts["read"], counts["refused"], longest


@pytest.mark.parametrize(
    "variants",
    [
        *(png_variants, bmp_variants, avif_variants, other_variants),
        lambda: tiff_variants(light=True),
        lambda: jpeg2000_variants(light=True),
    ],
    ids=["png", "bmp", "avif", "other", "tiff", "jpeg2000"],
)
def test_a_sample_of_variants_is_read_right_or_refused(variants):
    n_read, _, _ = check(variants())
    assert n_read >= 30


@pytest.mark.full
def test_all_variants_are_read_right_or_refused(capsys):
    pytest.importorskip("imagecodecs")
    totals = collections.Counter()
    for variants in (tiff_variants, png_variants, bmp_variants, jpeg2000_variants, avif_variants, other_variants):
        n_read, n_refused, longest = check(variants())
        totals.update(read=n_read, refused=n_refused)
        with capsys.disabled():
            print(f"\n{variants.__name__}: {n_read} read, {n_refused} refused, longest {1000 * longest:.0f} ms")
    assert totals.total() >= 800


@pytest.mark.full
@pytest.mark.parametrize("variants", [png_variants, avif_variants])
def test_libvips_sees_the_same_images(variants):
    pyvips = pytest.importorskip("pyvips")
    for variant in variants():
        if variant.name == "avif premultiplied":
            continue  # libvips does not divide by alpha
        image = pyvips.Image.new_from_buffer(variant.data, "").autorot()
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        seen = image.cast("uchar").numpy()[..., :3].astype(float)
        assert np.abs(seen - np.asarray(decode(variant.data))).max() <= 4, variant.name
