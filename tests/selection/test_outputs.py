"""Several targets per image, as they are written."""

import numpy as np
import pytest

from featx.errors import InputError
from featx.selection.outputs import Outputs, SeveralTargets, hint_separator, match_columns, read_several
from featx.sources.labels import join_labels, split_labels


def test_sets_from_text_and_from_collections():
    found = read_several(["cat|dog", "|", " dog | 10|9"], Outputs(), None, "t.csv")
    assert found.names == ("9", "10", "cat", "dog")
    assert found.values.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]]
    assert found.texts("|") == ["cat|dog", "|", "9|10|dog"]
    assert read_several([("b",), ()], Outputs(), None, "y").values.tolist() == [[1], [0]]
    with pytest.raises(InputError, match="every set of labels is empty"):
        read_several(["|"], Outputs(), None, "t.csv")


def test_columns_are_labels_or_numbers():
    names = Outputs(("a", "b"))
    assert read_several([("1", "false"), (0, True)], names, None, "t").values.tolist() == [[1, 0], [0, 1]]
    numbers = read_several([("1.5", "2"), ("0", "1")], names, None, "t")
    assert (numbers.task, numbers.values.tolist()) == ("regression", [[1.5, 2.0], [0.0, 1.0]])
    assert read_several([("1", "0")], names, "regression", "t").task == "regression"
    with pytest.raises(InputError, match="column 'b': 'red' is neither a finite number"):
        read_several([("1", "red")], names, None, "t")
    with pytest.raises(InputError, match="fit one model for each column of classes"):
        read_several([("1", "2")], names, "multilabel", "t")


@pytest.mark.parametrize("labels", [[], ["a"], ["a|b", "c\\"], ["a\\|b", "|"], ["x;y", "a b"]])
@pytest.mark.parametrize("separator", ["|", ";", "::"])
def test_labels_survive_joining_and_splitting(labels, separator):
    assert split_labels(join_labels(labels, separator), separator) == labels


def test_values_in_the_order_of_a_model():
    target = SeveralTargets("multilabel", ("dog", "cat"), np.array([[1, 0]]))
    assert match_columns(target, ["bird", "cat", "dog"], "t").tolist() == [[0, 0, 1]]
    with pytest.raises(InputError, match="labels that the model does not know: dog; it knows cat"):
        match_columns(target, ["cat"], "t")
    unnamed = SeveralTargets("multilabel", ("0", "1"), np.array([[1, 0]]))
    assert match_columns(unnamed, ["cat", "dog"], "y").tolist() == [[1, 0]]
    numbers = SeveralTargets("regression", ("price",), np.array([[1.0]]))
    with pytest.raises(InputError, match="targets that are missing: rooms"):
        match_columns(numbers, ["price", "rooms"], "t")


def test_a_hint_needs_parts_that_occur_elsewhere():
    assert hint_separator(["a;b", "b;c", "a;c", "a;b;c", "c;a", "b;a"]) == ";"
    assert hint_separator(["north-east", "south, west", "west"]) is None
    assert hint_separator(["1/2", "3/4"]) is None
    assert hint_separator([None, 1, 2.0]) is None
