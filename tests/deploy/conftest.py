import pytest

from .support import Trials


@pytest.fixture(scope="session")
def trials(tiny_backbone, tmp_path_factory):
    """Three kinds of clothing, embedded by the tiny backbone, and heads on them."""
    return Trials(tiny_backbone, tmp_path_factory.mktemp("exported"))
