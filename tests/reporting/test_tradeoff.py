"""The plot of error against cost."""

import pytest
from PIL import Image

from featx.reporting.tradeoff import Point, draw_tradeoff


def points(n):
    return [Point(f"candidate {i}", 3.0 + i, 5 - i / 10, 0.5, i % 3 == 0, i == n - 1, i % 2 == 1) for i in range(n)]


@pytest.mark.parametrize("n", [1, 3, 48])
@pytest.mark.parametrize("max_ms", [None, 60.0])
def test_any_number_of_candidates_can_be_drawn(tmp_path, n, max_ms):
    draw_tradeoff(tmp_path / "x.png", "title", points(n), max_ms)
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] == 1100
        assert 600 < image.size[1] < 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert (163, 58, 44) in colours  # the recommended one
    assert ((154, 164, 173) in colours) == (n > 1)  # others
