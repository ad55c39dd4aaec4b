"""Test the display of a search."""

import json

from featx.selection import search
from tests.selection.selection_tools import of_tiny


def test_a_search_shows_in_a_line_as_html_and_as_plain_values(tiny_backbone, colours):
    X, y, _ = colours
    found = search(X[:60], y[:60], **of_tiny(tiny_backbone, layers="head"))
    assert repr(found).startswith("SearchResult(head='")
    assert len(repr(found)) < 160
    assert str(found).endswith(found.reason)
    assert found.heads.table() in str(found)
    assert found.cost.describe() in str(found)
    n_hidden = sum(not c.on_front for c in found.comparison.candidates[1:])
    assert (f"and {n_hidden} more candidates" in found.table(1)) == (n_hidden > 0)
    assert "more candidates" not in found.table(None)
    assert found._repr_html_().count("<tr>") == 1 + len(found.scores)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (plain["head"], len(plain["scores"])) == (found.name, len(found.scores))
    assert found.to_frame()["head"].tolist() == [score.head for score in found.scores]
