"""Estimates count every image and sample evenly; patterns reach the listing."""

import pytest

from featx import dataset
from featx.dataset import job


def test_an_estimate_extrapolates_from_a_sample(tree, extractor):
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    result = dataset.estimate("photos", extractor, n_samples=7)
    assert (result.n_images, result.n_sampled) == (21, 7)
    assert result.n_bytes > 21 * 16 * 4
    everything = dataset.estimate("photos", extractor)
    assert (everything.n_sampled, everything.n_failed) == (21, 1)
    assert everything.n_bytes_read == sum(path.stat().st_size for path in tree.rglob("*.png"))
    assert everything.to_dict()["n_failed"] == 1


@pytest.mark.parametrize("patterns", [{}, {"include": "*.png"}, {"include": ["a*", "b*"], "exclude": "c*"}])
def test_patterns_are_handed_to_the_listing(tree, extractor, monkeypatch, patterns):
    seen = []

    def open_sources(source, *, path_column, target, **options):
        seen.append(options)
        return real(source)

    real = job.open_sources
    for function in (dataset.embed, dataset.estimate):
        monkeypatch.setitem(function.__globals__, "open_sources", open_sources)
    dataset.embed("photos", "vectors", extractor, **patterns)
    dataset.estimate("photos", extractor, n_samples=2, **patterns)
    assert seen == [patterns, patterns]
