"""Estimates count every image and sample evenly; patterns select images of jobs and of estimates."""

from featx import dataset


def test_an_estimate_extrapolates_from_a_sample(tree, extractor):
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    result = dataset.estimate("photos", extractor, n_samples=7)
    assert (result.n_images, result.n_sampled) == (21, 7)
    assert result.n_bytes > 21 * 16 * 4
    everything = dataset.estimate("photos", extractor)
    assert (everything.n_sampled, everything.n_failed) == (21, 1)
    assert everything.n_bytes_read == sum(path.stat().st_size for path in tree.rglob("*.png"))
    assert everything.to_dict()["n_failed"] == 1


def test_patterns_select_images(tree, extractor):
    (tree / "bag" / "mask.png").write_bytes(b"broken")
    assert dataset.estimate("photos", extractor, include="bag/*", exclude=["*mask*"]).n_images == 10
    assert dataset.embed("photos", "vectors", extractor, include="bag/*", exclude="*mask*").n_images == 10
    assert set(dataset.open("vectors").y) == {"bag"}
    assert dataset.embed("photos", "vectors", extractor, exclude=["*mask*"]).n_images == 20  # and then all others
