import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from featx.images import colour
from featx.images.decode import decode


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_large_image_has_the_pixels_of_a_small_one(mode, format, monkeypatch):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (301, 200), dtype=np.uint16))
    elif mode == "P":
        image = Image.fromarray(rng.integers(0, 256, (301, 200), dtype=np.uint8)).convert("P")
        image.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tolist())
    else:
        image = Image.fromarray(rng.integers(0, 256, (301, 200, 4), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, format, **({"transparency": 3} if mode == "P" and format == "PNG" else {}))
    small = np.asarray(decode(file.getvalue()))
    monkeypatch.setattr(colour, "_LARGE", 1)
    large = decode(file.getvalue())
    assert (np.asarray(large) == small).all()
    assert (np.asarray(large.resize((50, 60))) == np.asarray(Image.fromarray(small).resize((50, 60)))).all()


def test_the_caller_s_large_image_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(colour, "_LARGE", 1)
    image = Image.new("RGBA", (300, 300), (10, 20, 30, 40))
    decode(image)
    assert image.getpixel((0, 0)) == (10, 20, 30, 40)
    grey = Image.new("LA", (300, 300), (10, 40))
    decode(grey)
    assert grey.getpixel((0, 0)) == (10, 40)


def test_premultiplied_grey_is_read():
    image = Image.new("LA", (2, 2), (200, 128)).convert("La")
    assert abs(decode(image).getpixel((0, 0))[0] - (200 * 128 + 255 * 127) / 255) <= 2


def test_a_large_image_with_transparency_takes_no_second_copy():
    """Pillow's own memory is not traced, so that only the shared pixels and the strips count."""
    image, file = Image.new("RGBA", (2100, 2000), (200, 10, 30, 100)), io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    tracemalloc.start()
    decode(file.getvalue())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 4 * 2100 * 2000
