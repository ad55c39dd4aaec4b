import pytest

from featx._events import Events
from featx.errors import InputError
from featx.selection.inputs import SourceOptions, read_inputs


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a"], "groups: 1 for 2 texts"),
        (["a", None], "groups: text 1 has no group"),
        ([["a"], ["b"]], "a name for each text"),
        ("author", "X holds texts, which have no columns"),
    ],
)
def test_groups_of_texts_are_named_so(groups, said):
    options = {"kind": "text", "task": None, "log_target": False, "groups": groups, "events": Events()}
    with pytest.raises(InputError, match=said):
        read_inputs(["good", "bad"], [1, 0], SourceOptions(), **options)
