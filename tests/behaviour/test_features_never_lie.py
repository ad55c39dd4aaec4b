"""An image's features depend on the image alone."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

import featx

# On the CPU every comparison is exact: a session uses one thread for each call, and onnxruntime's
# convolutions go through a batch image by image, so that each row is the same sums in the same order.
EXTRACTOR = featx.FeatureExtractor(device="cpu")
ARRAYS = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.camera(), data.page()]
ARRAYS += load_sample_images().images
FASHION = featx.samples.load_fashion_mnist("test")[0][::50]
IMAGES = [*ARRAYS, *FASHION]
RGB = data.coffee()[:300:3, :480:3].copy()
GREY = RGB[..., 1]


@pytest.fixture(scope="module")
def expected():
    """The features of each image alone."""
    return np.stack([EXTRACTOR.transform([image])[0] for image in IMAGES])


def save(image, format="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


class Tensor:
    """Like a tensor of PyTorch or TensorFlow."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def embed_one(item):
    return EXTRACTOR.transform([item])[0]


def same(a, b):
    return a.dtype == b.dtype == np.float32 and np.array_equal(a, b)


def distance(a, b):
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_the_rows_compared_here_are_all_different_and_not_trivial(expected):
    assert np.isfinite(expected).all()
    assert (np.count_nonzero(expected, axis=1) > 100).all()
    assert len({row.tobytes() for row in expected}) == len(IMAGES) == 14


@pytest.mark.parametrize("n_threads", [1, 2, 3, None])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 14, 1000])
def test_alone_or_in_any_batch_on_any_number_of_threads(batch_size, n_threads, expected):
    extractor = featx.FeatureExtractor(device="cpu", batch_size=batch_size, n_threads=n_threads)
    assert same(extractor.transform(IMAGES), expected)


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_and_any_company(seed, expected):
    order = np.random.default_rng(seed).integers(0, len(IMAGES), 20)  # some twice, some not at all
    assert same(EXTRACTOR.transform([IMAGES[i] for i in order]), expected[order])


def test_again_and_from_another_extractor_of_the_same_kind(expected):
    assert same(EXTRACTOR.transform(IMAGES), EXTRACTOR.transform(IMAGES))
    assert same(featx.FeatureExtractor(device="cpu").fit(IMAGES).transform(IMAGES), expected)


@pytest.mark.parametrize("parameters", [{"layer": "stage2"}, {"pooling": "max"}, {"l2_normalize": True}])
def test_other_features_depend_on_the_image_alone_as_well(parameters, expected):
    extractor = featx.FeatureExtractor(device="cpu", batch_size=3, **parameters)
    alone = np.concatenate([extractor.transform([image]) for image in IMAGES])
    assert same(extractor.transform(IMAGES[::-1])[::-1], alone)
    assert alone.shape != expected.shape or not np.allclose(alone, expected)


@pytest.mark.parametrize("array", ARRAYS[:5], ids=["astronaut", "coffee", "chelsea", "rocket", "camera"])
def test_path_bytes_image_and_array_are_one_image(array, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(save(array))
    forms = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(array),
        Image.open(path),
        array,
        np.asfortranarray(array),
        io.BytesIO(path.read_bytes()),
        path.open("rb"),
        memoryview(path.read_bytes()),
        Tensor(array),
    ]
    expected = embed_one(array)
    for row in EXTRACTOR.transform(forms):
        assert same(row, expected)
    forms[8].close()


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_a_jpeg_is_the_array_it_decodes_to(name, expected):
    samples = load_sample_images()
    path, number = next((Path(path), i) for i, path in enumerate(samples.filenames) if path.endswith(name))
    for row in EXTRACTOR.transform([path, path.read_bytes(), Image.open(path), samples.images[number]]):
        assert same(row, expected[6 + number])


def write_sixteen_bit_rgb(array):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in (array.astype(np.uint16) * 257).astype(">u2"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    )


def oriented(value, stored):
    block = Image.Exif()
    block[0x112] = value
    return save(np.ascontiguousarray(stored), exif=block)


PALETTE = Image.fromarray(RGB).quantize(128)
OPAQUE = np.full(GREY.shape, 255, np.uint8)
EQUIVALENTS = {  # an item, and the RGB image that it is
    "1": (Image.fromarray(GREY > 100), (GREY > 100) * np.uint8(255)),
    "L": (save(GREY), np.dstack([GREY] * 3)),
    "P": (save(PALETTE), np.asarray(PALETTE.convert("RGB"))),
    "RGBA": (save(np.dstack([RGB, OPAQUE])), RGB),
    "RGBA array": (np.dstack([RGB, OPAQUE * (GREY > 90)]), np.where(GREY[..., None] > 90, RGB, 255)),
    "RGBA with holes": (save(np.dstack([RGB, OPAQUE * (GREY > 90)])), np.where(GREY[..., None] > 90, RGB, 255)),
    "LA": (save(Image.fromarray(np.dstack([GREY, OPAQUE]))), np.dstack([GREY] * 3)),
    "RGB with a transparent colour": (save(RGB, transparency=(1, 255, 3)), RGB),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB),
    "16-bit grey PNG": (save(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
    "16-bit grey TIFF": (save(GREY.astype(np.uint16) * 257, "TIFF"), np.dstack([GREY] * 3)),
    "16-bit RGB PNG": (write_sixteen_bit_rgb(RGB), RGB),
    "orientation 3": (oriented(3, RGB[::-1, ::-1]), RGB),
    "orientation 6": (oriented(6, np.rot90(RGB)), RGB),
    "animation": (save(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB),
    "BMP": (save(RGB, "BMP"), RGB),
    "WebP": (save(RGB, "WEBP", lossless=True), RGB),
}


@pytest.mark.parametrize("kind", EQUIVALENTS)
def test_every_mode_gives_the_features_of_its_rgb_equivalent(kind):
    item, equivalent = EQUIVALENTS[kind]
    assert same(embed_one(item), embed_one(equivalent))


def test_the_equivalents_all_at_once_in_one_mixed_list():
    items = [item for item, _ in EQUIVALENTS.values()]
    equivalents = [equivalent for _, equivalent in EQUIVALENTS.values()]
    mixed = featx.FeatureExtractor(device="cpu", batch_size=3).transform(items)
    assert same(mixed, EXTRACTOR.transform(equivalents))
    assert len({row.tobytes() for row in mixed}) == 5  # 1-bit, grey, palette, colour, colour with holes


def test_an_array_of_images_is_the_list_of_its_parts():
    stack = np.stack([data.astronaut()[i : i + 250, i : i + 300] for i in (0, 60, 120, 200)])
    parts = np.stack([embed_one(part) for part in stack])
    assert same(EXTRACTOR.transform(stack), parts)
    assert same(EXTRACTOR.transform(list(stack)), parts)
    assert same(EXTRACTOR.transform(stack[::-1, :, ::-1]), np.stack([embed_one(p[:, ::-1]) for p in stack[::-1]]))
    grey = stack[..., 0]
    assert same(EXTRACTOR.transform(list(grey)), np.stack([embed_one(part) for part in grey]))


def test_containers_do_not_matter(expected):
    for X in (tuple(FASHION), np.array(FASHION, object), pl.Series(FASHION), pl.DataFrame({"image": FASHION})):
        assert same(EXTRACTOR.transform(X), expected[len(ARRAYS) :])
    assert same(EXTRACTOR.transform(image for image in IMAGES), expected)


def test_transform_embed_and_iter_embed_agree(expected):
    features, failures = EXTRACTOR.embed(IMAGES)
    assert same(features, expected)
    assert failures == []
    for batch_size in (1, 4, 32):
        stream = featx.FeatureExtractor(device="cpu", batch_size=batch_size).iter_embed(iter(IMAGES))
        assert same(np.stack(list(stream)), expected)
    assert same(EXTRACTOR.fit_transform(IMAGES, range(len(IMAGES))), expected)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32])
def test_failing_images_neither_move_nor_change_the_others(batch_size, n_threads, expected):
    bad = {0: b"", 1: "no-such.png", 5: None, 6: b"text", 7: 3.5, 12: ARRAYS[0] / 255, 19: b"\x89PNG"}
    good = [i for i in range(len(IMAGES) + len(bad)) if i not in bad]
    rest = iter(IMAGES)
    items = [bad[i] if i in bad else next(rest) for i in range(len(IMAGES) + len(bad))]
    extractor = featx.FeatureExtractor(device="cpu", batch_size=batch_size, n_threads=n_threads, on_error="nan")
    with pytest.warns(featx.FailedImagesWarning) as caught:
        transformed = extractor.transform(items)
    embedded = extractor.embed(items)
    streamed = list(extractor.iter_embed(iter(items)))
    for features in (transformed, embedded.features):
        assert same(features[good], expected)
        assert np.isnan(features[list(bad)]).all()
    assert same(np.stack([streamed[i] for i in good]), expected)
    failures = [streamed[i] for i in bad]
    assert [failure.index for failure in failures] == list(bad)
    assert failures == embedded.failures == caught[0].message.failures


@pytest.mark.parametrize("array", ARRAYS[:4], ids=["astronaut", "coffee", "chelsea", "rocket"])
def test_another_image_has_other_features(array):
    row = embed_one(array)
    others = [array[:, ::-1], array[::-1], np.rot90(array), array[..., ::-1], array[..., [0, 2, 1]], 255 - array]
    for other in others:
        assert distance(row, embed_one(other)) > 0.003
    assert distance(row, embed_one(np.roll(array, 1, axis=0))) > 0  # one row of pixels lower


def test_no_warning_and_no_state_is_left_behind():
    before = np.array(ARRAYS[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EXTRACTOR.transform(ARRAYS)
    assert (ARRAYS[0] == before).all()
