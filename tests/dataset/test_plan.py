"""Sources are opened once, and a plan in a temporary folder leaves nothing behind."""

from featx.dataset.generation import Row
from featx.dataset.listing import OpenSources
from featx.dataset.plan import Plan


class CountingSource:
    def __init__(self, name):
        self.name, self.n_opened = name, 0

    def contents(self):
        self.n_opened += 1
        return lambda key, place: lambda: f"{self.name}:{key}:{place.decode()}".encode()


def test_each_source_is_opened_once_and_only_if_needed():
    sources = [CountingSource("a"), CountingSource("b"), CountingSource("c")]
    opened = OpenSources(sources)
    rows = [Row(0, "x", b"1", None), Row(1, "y", b"2", None), Row(0, "z", b"3", None)]
    assert [opened.fetch(row)() for row in rows] == [b"a:x:1", b"b:y:2", b"a:z:3"]
    assert [source.n_opened for source in sources] == [1, 1, 0]


def test_a_temporary_plan_leaves_nothing_behind():
    with Plan.temporary() as plan:
        assert plan.path.exists()
    assert not plan.path.parent.exists()
