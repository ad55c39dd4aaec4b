"""Untrusted text is safe to print on one line."""

import pytest

from featx._text import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("été 写真.jpg", "été 写真.jpg"),
        ("a\u00a0b", "a\u00a0b"),  # a space of another width
        ("👩\u200d👧", "👩\u200d👧"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202egpj.exe", r"\u202egpj.exe"),  # would reverse what follows
        ("caf\udce9", r"caf\udce9"),
        (12, "12"),
    ],
)
def test_letters_stay_and_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_one_line_joins_the_lines_of_an_error():
    assert one_line(ValueError("two\n  lines\x1b")) == r"two lines\x1b"
