"""Images for schemathesis: real images, damaged images, and random bytes; loaded by SCHEMATHESIS_HOOKS."""

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from featx.samples import load_fashion_mnist


def _encode(kind):
    stream = io.BytesIO()
    Image.fromarray(data.astronaut()[:90, :120]).save(stream, kind)
    return stream.getvalue()


IMAGES = [*map(_encode, ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")), *load_fashion_mnist("test")[0][:2]]


@st.composite
def damaged(draw):
    """Take an image, change some bytes, and perhaps cut it off."""
    content = bytearray(draw(st.sampled_from(IMAGES)))
    for _ in range(draw(st.integers(1, 6))):
        content[draw(st.integers(0, min(len(content) - 1, 2000)))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(1, len(content)))] if draw(st.booleans()) else content)


ANY = st.sampled_from(IMAGES) | damaged() | st.binary()
schemathesis.openapi.format("binary", ANY)
for kind in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, ANY)
