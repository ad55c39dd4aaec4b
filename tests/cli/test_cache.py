"""``featx cache`` and ``--cache``."""


def test_the_cache_is_shown_pruned_and_cleared(featx, here, world, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", str(here / "own"))
    assert ": empty" in featx("cache", "info").out
    assert featx("cache", "clear").code == 2
    for _ in range(2):
        assert featx("embed", world / "test", "--cache", "-o", "f.npy").code == 0
    assert "12 vectors of 12 files" in featx("cache", "info").out
    ran = featx("cache", "prune")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "add --unused-days or --max-mb" in ran.err
    assert featx("cache", "prune", "--unused-days", 1).out.startswith("0 vectors removed")
    for arguments in (("prune", "--max-mb", "nan"), ("prune", "--max-mb", "-1"), ("clear", "--unused-days", "3")):
        assert featx("cache", *arguments).code == 2
    assert "12 vectors" in featx("cache", "info").out
    assert featx("cache", "prune", "--max-mb", 0.03).out.startswith("6 vectors removed")
    assert featx("cache", "clear").out.startswith("6 vectors removed")


def test_a_cache_of_ones_own(featx, here, world):
    assert featx("fit", world / "train", "--cache-folder", "mine", "-o", "m.featx").code == 0
    assert "36 vectors" in featx("cache", "info", "--cache-folder", "mine").out
    ran = featx("evaluate", "m.featx", world / "test", "--cache-folder", "mine")
    assert ran.code == 0
    assert "48 vectors" in featx("cache", "info", "--folder", "mine").out


def test_providers_reach_predict_and_evaluate(featx, here, world):
    assert featx("fit", world / "train", "-o", "m.featx").code == 0
    for command in (("predict", "m.featx", world / "test", "-o", "a.csv"), ("evaluate", "m.featx", world / "test")):
        ran = featx(*command, "--providers", "MarsExecutionProvider")
        assert ran.code == 2
        assert "MarsExecutionProvider not in this onnxruntime" in ran.err
