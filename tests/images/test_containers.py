"""X in every form becomes the same sequence of images."""

import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import featx
from featx.extractor import FeatureExtractor
from featx.images.containers import list_items
from featx.samples import load_fashion_mnist

X = load_fashion_mnist("test")[0][:6]
PATHS = ["a.png", "b.png"]


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        lambda x: np.array(x, dtype=object),
        lambda x: np.array(x, dtype=object)[:, None],
        pd.Series,
        lambda x: pd.DataFrame({"image": x}),
        lambda x: pl.Series(x),
        lambda x: pl.DataFrame({"image": x}),
        lambda x: pd.DataFrame({("several", "levels"): x}),
        lambda x: pd.DataFrame({"collect": x}),
        lambda x: pd.Series(x, index=["columns", *range(1, len(x))]),
        lambda x: pa.array(x),
        lambda x: pa.chunked_array([x[:3], x[3:]]),
        lambda x: pa.table({"image": x}),
        lambda x: (item for item in x),
    ],
)
def test_every_container_gives_the_same_images(container):
    assert list(list_items(container(X))) == X


@pytest.mark.parametrize(
    "container",
    [
        np.array,
        lambda x: np.array(x, dtype=np.dtypes.StringDType()),
        lambda x: np.array(x, dtype=np.dtypes.StringDType())[:, None],
        lambda x: pd.Series(x, dtype="category"),
        lambda x: pd.Series(x, dtype="string"),
        lambda x: pd.Series(x, dtype="string[pyarrow]"),
        lambda x: pd.Series(x, dtype="string").array,
        lambda x: pl.Series(x, dtype=pl.Categorical),
    ],
)
def test_every_kind_of_text_names_files(container):
    items = list_items(container(PATHS))
    assert items == PATHS
    assert all(isinstance(item, str) for item in items)


@pytest.mark.parametrize(
    "nothing",
    [[], np.array([]), np.empty((0, 1)), pd.Series([]), pd.DataFrame({"image": []}), pl.Series([])],
    ids=["list", "array", "column", "Series", "DataFrame", "polars Series"],
)
def test_no_images_give_no_items(nothing):
    assert len(list_items(nothing)) == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pl.LazyFrame({"image": X}), r"X is a LazyFrame, which holds no rows yet; give X.collect\(\)"),
        (pa.table({"a": X, "b": X}), "X has the columns a, b; expected the one that holds images"),
        (np.empty((0, 5)), r"X has shape \(0, 5\)"),
        (np.array(5.0), r"X is an array of float64 with shape \(\)"),
        (io.BytesIO(X[0]), r"X is a single image, not a sequence: give \[X\]"),
    ],
)
def test_tables_and_arrays_without_images_are_named(table, message):
    with pytest.raises(featx.InputError, match=message):
        list_items(table)


class Dataset:
    """As users write it: a length and items, and no end to the items."""

    def __init__(self, n=6):
        self.n, self.loaded = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.loaded.append(i)
        return X[i % len(X)]


@pytest.mark.parametrize("parameters", [{}, {"cache": "cache"}])
def test_a_dataset_class_loads_each_image_once(parameters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = Dataset(6)
    rows = FeatureExtractor(layer="stem", **parameters).transform(dataset)
    np.testing.assert_array_equal(rows, FeatureExtractor(layer="stem").transform(X))
    assert dataset.loaded == list(range(6))


class Tensor:
    """Like a tensor of PyTorch or TensorFlow."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return Tensor(self.array[i])


def test_a_tensor_of_images_is_an_array_of_images():
    arrays = np.stack([np.asarray(Image.open(io.BytesIO(x)).convert("RGB")) for x in X])
    assert list_items(Tensor(arrays)) is arrays
    with pytest.raises(featx.InputError, match="put a single image into a list"):
        list_items(Tensor(arrays[0]))
    with pytest.raises(featx.InputError, match=r"X is a Tensor that NumPy cannot read: use x.cpu\(\)"):
        list_items(Tensor(arrays, TypeError("use x.cpu()\nfirst")))
