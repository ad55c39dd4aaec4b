"""Share the small tree of images with the suites of killed jobs."""

from tests.dataset.conftest import archive, extractor, tree

__all__ = ["archive", "extractor", "tree"]
