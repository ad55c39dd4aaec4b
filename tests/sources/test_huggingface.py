"""List what Hugging Face's `datasets` saves, written here with pyarrow."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc

from featx.errors import SourceError
from featx.sources import list_images, open_sources
from featx.sources.labels import Target, read_target


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Save a dataset with a label column, or one for each split."""
    monkeypatch.chdir(tmp_path)

    def write(labels, feature, *splits):
        for folder in splits or [""]:
            where = Path("saved", folder)
            where.mkdir(parents=True, exist_ok=True)
            cells = [{"bytes": b"image", "path": f"{i}.png"} for i in range(len(labels))]
            table = pa.table({"image": cells, "label": labels})
            with ipc.new_stream(where / "data.arrow", table.schema) as stream:
                stream.write_table(table)
            features = {"image": {"_type": "Image"}, "label": feature}
            (where / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
            (where / "dataset_info.json").write_text(json.dumps({"features": features}))
        if splits:
            Path("saved", "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        return "saved"

    return write


def names(*names):
    return {"names": names, "_type": "ClassLabel"}


VALUE = {"dtype": "string", "_type": "Value"}


def test_a_negative_class_is_no_label(save):
    source = save([1, -1, 0, None], names("ants", "bees"))
    assert list_images(source, need_target=True).targets == ["bees", None, "ants", None]


def test_names_of_classes_that_look_like_numbers_are_classes(save):
    listing = list_images(save([0, 1], names("0.5", "1.5")), need_target=True)
    assert read_target(listing, None) == Target("classification", ["0.5", "1.5"])
    with pytest.raises(SourceError, match=r"the names in column 'label' are classes"):
        read_target(listing, "regression")


@pytest.mark.parametrize(
    ("labels", "feature", "targets"),
    [
        ([[0], [0, 1]], [names("ants", "bees")], ["ants", "ants|bees"]),
        ([[0], []], {"feature": names("ants", "bees"), "_type": "Sequence"}, ["ants", "|"]),
        ([["a"], None], {"feature": VALUE, "_type": "List"}, ["a", None]),
    ],
)
def test_lists_are_several_labels(save, labels, feature, targets):
    listing = list_images(save(labels, feature), need_target=True)
    assert (listing.targets, listing.separator) == (targets, "|")


def test_structs_are_no_labels(save):
    source = save([{"x": "a"}, {"x": "b"}], {"x": VALUE})
    with pytest.raises(SourceError, match=r"column 'label' holds structs"):
        list_images(source, need_target=True)
    listing = list_images(source)
    assert listing.targets is None
    assert any("the images have no labels" in note for note in listing.notes)


def test_labels_have_the_spelling_of_any_table(save):
    assert list_images(save([1.0, 2.0], {"dtype": "float64", "_type": "Value"})).targets == ["1", "2"]
    assert list_images(save([True, False], {"dtype": "bool", "_type": "Value"})).targets == ["True", "False"]
    assert any("'NA' in 1 row" in note for note in list_images(save(["NA", "ant"], VALUE)).notes)


def test_parts_of_a_data_set_are_taken_one_at_a_time(save):
    source = save([0, 1], names("ants", "bees"), "train", "test")
    with pytest.raises(SourceError, match=r'test and train are parts of a data set.*include="train/\*"'):
        list_images(source, need_target=True)
    assert list_images(source, include="train/*", need_target=True).targets == ["ants", "bees"]
    (opened,) = open_sources(source)
    assert len(list(opened.entries())) == 4
