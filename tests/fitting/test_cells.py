"""Cells of columns of numbers and categories."""

import pandas as pd
import pytest

from featx.errors import InputError
from featx.fitting.cells import choose_kind, note_codes, note_outside, read_numbers
from featx.fitting.columns import KindColumns, _find_kinds
from featx.fitting.inputs import read_rows


def choose(*cells, column="area"):
    return choose_kind(column, cells, [str(i + 1) for i in range(len(cells))])


@pytest.mark.parametrize("mark", ["n/a", "NA", "NULL", " nan ", "#N/A"])
def test_a_word_for_a_missing_value_leaves_a_column_of_numbers(mark):
    assert choose("54", mark, "60", "") == ("number", ())
    values, notes = read_numbers("area", ["54", mark, "60", ""], list("1234"))
    assert values == [54, None, 60, None]
    assert "1 cell counts as missing" in notes[0]
    assert "row 2" in notes[0]


@pytest.mark.parametrize("word", ["-", "unknown", "12 m2", "2021_03", "inf", "12,5"])
def test_another_word_among_numbers_is_an_error_that_names_column_row_and_cell(word):
    with pytest.raises(InputError, match=r"'area'.*row 2.*columns=\{'area': 'category'\}") as error:
        choose("54", word, "60", "61")
    assert repr(word) in str(error.value)
    with pytest.raises(InputError, match="has a comma"):
        choose("12,5", "13,5")


def test_words_beside_few_numbers_and_codes_are_categories():
    assert choose("a", "b", "3") == ("category", ())
    assert choose("NA", "NA") == ("category", ())
    assert choose("NA", "Pave", "Grvl") == ("category", ())
    assert choose("08001", "unknown", "08002", "08003") == ("category", ())
    kind, notes = choose("08001", "08002")
    assert kind == "category"
    assert "columns={'area': 'number'}" in notes[0]


@pytest.mark.parametrize(
    ("column", "numbers", "is_noted"),
    [
        ("place", [8001, 8002] * 3, True),
        ("place", [8001, 8002, 8003, 8004], False),  # no number repeats
        ("postcode", [8001, 8002, 8003, None], True),
        ("postcode", [54.5, 8001.0], False),
        ("built", [1990, 2004] * 3, False),
        ("rooms", [3, 4] * 3, False),
        ("width", [103, 204] * 3, False),
        ("area_code", [212, 718], True),
    ],
)
def test_whole_numbers_that_may_be_codes_are_noted(column, numbers, is_noted):
    notes = note_codes(column, numbers)
    assert bool(notes) == is_noted
    assert all(f"columns={{'{column}': 'category'}}" in note for note in notes)


def test_a_number_far_outside_of_the_fit_is_noted():
    rows = [{"zip": 8031.0}, {"zip": 8040.0}, {"zip": None}, {"zip": 9999.0}]
    (note,) = note_outside(rows, {"zip": [8001, 8050]})
    assert "1 row has" in note
    assert "8001 to 8050" in note
    assert note.endswith(": 9999")
    assert note_outside(rows[:3], {"zip": [8001, 8050]}) == ()
    assert note_outside([{"zip": 2.0}], {"zip": [1, 1]})


def test_cells_of_a_frame_are_read_as_the_kinds_that_are_asked_for():
    frame = pd.DataFrame({"area": ["54", "n/a", "60", "61"], "zip": [8001, 8002, 8001, 8001], "price": [1.0, 2, 3, 4]})
    asked, notes = KindColumns.read(None, None, {"area": None, "zip": "category"}), []
    rows, kinds = _find_kinds(read_rows(frame, None, asked.kinds, target="price"), asked, notes)
    assert kinds == {"area": "number", "zip": "category"}
    assert rows[1] == {"area": None, "zip": "8002"}
    assert len(notes) == 1
    inputs = read_rows(frame, None, {"area": "number"}, target="price")  # as for a prediction
    assert [row["area"] for row in inputs.items] == [54, None, 60, 61]
    assert "'n/a' in row 2" in inputs.notes[0]
    with pytest.raises(InputError, match=r"'area', row 3: 'abc'"):
        read_rows(frame.replace("60", "abc"), None, {"area": "number"}, target="price")
    asked = KindColumns.read(None, None, {"area": "number"})
    infinite = read_rows(frame.assign(area=[1.0, 2.0, float("inf"), 4.0]), None, asked.kinds, target="price")
    with pytest.raises(InputError, match="row 3"):
        _find_kinds(infinite, asked, [])
