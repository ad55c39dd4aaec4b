import numpy as np

from featx._text import find_cut, show_html
from featx.explanation.kinds import Detail
from featx.explanation.row_page import write_text

HOSTILE = "<script>x</script> \u202e\x00\ud800 bad"


def test_a_hostile_text_stays_text():
    html = write_text(
        Detail("texts", "<b>", HOSTILE, np.zeros(1), ((len(HOSTILE) - 3, len(HOSTILE)),)), np.array([1.0])
    )
    assert "<script" not in html
    assert "<b>" not in html
    assert not {"\u202e", "\x00", "\ud800"} & set(html)
    assert html.count("<mark") == 1
    assert show_html("\x00\n\u05d0") == "\\x00 \u05d0"


def test_a_long_text_shows_its_strongest_part():
    text = "dull " * 2000 + "good end"
    spans = tuple((i, i + 4) for i in range(0, len(text) - 3, 5))
    values = np.zeros(len(spans))
    values[-1] = 1.0
    html = write_text(Detail("texts", "review", text, np.zeros(1), spans), values, 100)
    assert ">good</mark>" in html
    assert html.count("<mark") < 25
    assert "characters are left out" in html
    assert "dull</mark>" in write_text(Detail("texts", "review", text, np.zeros(1), spans), values * 0, 100)


def test_a_cut_parts_no_letter_from_its_accents():
    assert find_cut("e\u0301" * 10, 7) == 6
    assert find_cut("one two three", 9) == 7
