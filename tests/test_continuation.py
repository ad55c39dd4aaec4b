"""Fit a model again on its own images and on new ones, and weigh its classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.errors import InputError
from featx.fitting import open_model
from featx.samples import load_fashion_mnist

ALL, LABELS = load_fashion_mnist("test")


def write(folder, classes, first, n):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in np.flatnonzero(name == LABELS)[first : first + n]:
            (folder / name / f"{i}.png").write_bytes(ALL[i])


@pytest.fixture
def shallow():
    return FeatureExtractor(layer="stem", device="cpu")


@pytest.fixture
def old_and_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old", ["bag", "coat"], 0, 6)
    write(tmp_path / "new", ["bag", "sandal"], 6, 3)
    return tmp_path


class TestContinue:
    """``continue_from``: old images come from their dataset or source, new ones are embedded."""

    def test_a_dataset_is_not_embedded_again(self, old_and_new, shallow, capsys, monkeypatch):
        featx.dataset.embed("old", "vectors", extractor=shallow.fit(None))
        featx.fit("vectors", head="knn", estimate=False).save("m.featx")
        shutil.rmtree("old")  # so nothing of it can be embedded
        assert main(["fit", "new", "--continue", "m.featx", "-o", "m2.featx", "--no-cross-validation"]) == 0
        assert "embedded again" not in capsys.readouterr().err
        info = featx.read_info("m2.featx")["info"]
        assert info["counts"] == {"bag": 9, "coat": 6, "sandal": 3}
        assert info["continued"] == {"model": "m.featx", "n_old": 12}
        assert (
            "Fitted again from m.featx: on its 12 images and 6 new ones." in (old_and_new / "m2.featx.md").read_text()
        )
        model = featx.load("m2.featx")
        assert np.ravel(model[0].layer).tolist() == ["stem"]
        assert isinstance(model[-1][-1].estimator, KNeighborsClassifier)
        assert model.classes_.tolist() == ["bag", "coat", "sandal"]
        # and once more, with all sources named
        write(old_and_new / "newer", ["coat"], 6, 2)
        result = featx.fit(["vectors", "new", "newer"], continue_from="m2.featx", estimate=False)
        assert result.info["counts"] == {"bag": 9, "coat": 8, "sandal": 3}

    def test_numbers_in_memory_and_their_logarithm(self, tiny_backbone):
        extractor, numbers = FeatureExtractor(str(tiny_backbone), device="cpu"), np.arange(1.0, 73)
        first = featx.fit(ALL[:60], numbers[:60], log_target=True, cv=2, extractor=extractor)
        again = featx.fit(ALL[:72], numbers, continue_from=first, cv=2)
        assert again.pipeline[-1].func is np.log
        assert again.guard.intervals.is_logarithm

    def test_it_gives_what_a_fit_on_all_gives_and_says_what_it_costs(self, old_and_new, shallow):
        first = featx.fit("old", head="ridge", extractor=shallow, estimate=False)
        assert first.info["sources"] == [{"names": ["old"], "include": [], "exclude": []}]
        again = featx.fit("new", continue_from=first, cv=3, head="knn")
        assert any("old: 12 of 12 images are embedded again" in note for note in again.notes)
        together = featx.fit(["old", "new"], head="knn", extractor=shallow, cv=3)
        assert again.info["counts"] == together.info["counts"]
        images = [ALL[i] for i in range(0, 300, 10)]
        np.testing.assert_allclose(
            again.pipeline.predict_proba(images), together.pipeline.predict_proba(images), atol=1e-6
        )

    def test_the_cache_holds_the_old_images(self, old_and_new, shallow, monkeypatch):
        featx.fit("old", head="knn", extractor=shallow, estimate=False).save("m.featx")
        model = open_model("m.featx")
        model.extractor.set_params(cache=str(old_and_new / "cache")).transform(
            [str(path) for path in sorted((old_and_new / "old").rglob("*.png"))]
        )
        result = featx.fit("new", continue_from=model, estimate=False)
        assert not any("embedded again" in note for note in result.notes)
        assert result.n_images == 18

    def test_numbers_and_their_logarithm_are_taken_over(self, old_and_new, shallow):
        for name, rows in (("a", range(12)), ("b", range(12, 18))):
            paths = sorted((old_and_new / "old").rglob("*.png")) * 2
            lines = [f"{paths[i]},{1 + i},{i // 2}" for i in rows]
            (old_and_new / f"{name}.csv").write_text("\n".join(["path,price,shop", *lines]))
        first = featx.fit(
            "a.csv", target="price", task="regression", log_target=True, extractor=shallow, estimate=False
        )
        again = featx.fit("b.csv", continue_from=first, groups="shop", cv=3)
        assert (again.task, again.head, again.info["n"]) == ("regression", "ridge", 18)
        assert again.pipeline[-1].func is np.log
        assert "groups on one side" in again.score.how

    def test_mistakes_say_what_to_do(self, old_and_new, shallow, capsys):
        model = featx.fit("old", head="knn", extractor=shallow, estimate=False)
        for options, said in (
            ({"search": "quick"}, "search='quick': the features of .* settled"),
            ({"extractor": shallow}, "extractor: the features"),
            ({"task": "regression"}, "task='regression': .* is a classification"),
        ):
            with pytest.raises(InputError, match=said):
                featx.fit("new", continue_from=model, **options)
        with pytest.raises(InputError, match="name new images beside them"):
            featx.fit("old", continue_from=model)
        memory = featx.fit(ALL[:60:2], LABELS[:60:2], head="knn", extractor=shallow, estimate=False)
        with pytest.raises(InputError, match="name the old images or their dataset beside them"):
            featx.fit("new", continue_from=memory)
        model.save("m.featx")
        shutil.move("old", "moved")
        assert main(["fit", "new", "--continue", "m.featx", "-o", "m2.featx"]) == 2
        assert "was fitted on old, which is not there; name the old images" in capsys.readouterr().err
        assert main(["fit", "new", "--continue", "m.featx", "--crop", "whole", "-o", "m2.featx"]) == 2
        assert "--crop: the features of m.featx are taken over" in capsys.readouterr().err
        assert main(["fit", "new", "moved", "-o", "m2.featx"]) == 2
        assert "several sources with --continue" in capsys.readouterr().err


def test_evaluating_on_the_images_of_the_fit_is_noticed(old_and_new, shallow, capsys):
    featx.fit("old", head="knn", extractor=shallow, estimate=False).save("m.featx")
    assert main(["evaluate", "m.featx", str(old_and_new / "old")]) == 0
    assert "was fitted on" in capsys.readouterr().err
    write(old_and_new / "test", ["bag", "coat"], 9, 2)
    assert main(["evaluate", "m.featx", "test"]) == 0
    assert "was fitted on" not in capsys.readouterr().err


class TestClassWeight:
    """Weights of classes reach the heads that have them."""

    @pytest.fixture
    def skewed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "p", ["shirt"], 0, 30)
        write(tmp_path / "p", ["coat"], 0, 3)

    @pytest.mark.parametrize("head", ["logistic_regression", "linear_svm", "random_forest"])
    def test_it_is_set(self, skewed, shallow, head):
        result = featx.fit("p", head=head, class_weight="balanced", extractor=shallow, estimate=False)
        parameters = result.pipeline.get_params()
        assert [v for k, v in parameters.items() if k.endswith("class_weight")] == ["balanced"]
        assert result.info["class_weight"] == "balanced"
        assert not any("rare classes" in note for note in result.notes)

    def test_a_rare_class_is_found_more_often(self, skewed, shallow):
        plain, weighted = (
            featx.fit("p", head="random_forest", class_weight=weight, extractor=shallow, estimate=False)
            for weight in (None, {"coat": 1000})
        )
        new = [ALL[i] for i in np.flatnonzero(LABELS == "coat")[3:]]
        first, second = (one.pipeline.predict_proba(new)[:, 0].mean() for one in (plain, weighted))
        assert second > first
        (note,) = [note for note in plain.notes if "rare classes" in note]
        assert "shirt has 30 images and coat 3" in note
        assert 'class_weight="balanced"' in note

    @pytest.mark.heavy
    def test_the_command_takes_pairs_and_json(self, skewed, capsys):
        for text in ("coat=10,shirt=1", '{"coat": 10, "shirt": 1}'):
            options = ["--head", "random_forest", "--layer", "stem", "--no-cross-validation", "-o", "m.featx"]
            assert main(["fit", "p", "--class-weight", text, *options]) == 0
            assert featx.read_info("m.featx")["info"]["class_weight"] == {"coat": 10, "shirt": 1}
        assert "Weights of the classes: coat 10, shirt 1." in Path("m.featx.md").read_text()
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["fit", "p", "--class-weight", "coat:3", "-o", "m.featx"])
        assert "expected balanced, label=weight" in capsys.readouterr().err
        assert main(["fit", "p", "--head", "knn", "--layer", "stem", "--no-cross-validation", "-o", "m.featx"]) == 0
        assert "--class-weight balanced counts each class alike" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                {"head": "knn", "class_weight": "balanced"},
                "class_weight='balanced': .*knn.* choose .*ridge",
            ),
            ({"class_weight": {"boot": 2}}, "class_weight: 'boot' is no class, there are coat, shirt"),
            ({"class_weight": {"coat": -1}}, "class_weight: -1 for 'coat'"),
            ({"class_weight": "auto"}, "class_weight='auto': expected"),
            ({"class_weight": "balanced", "search": "quick"}, "with `search`, name the head"),
        ],
    )
    def test_mistakes_are_named(self, skewed, options, said):
        with pytest.raises(InputError, match=said):
            featx.fit("p", **options)

    def test_numbers_have_no_classes(self, shallow):
        with pytest.raises(InputError, match="a regression has no classes"):
            featx.fit(ALL[:6], [1.5, 2.5, 3.5, 1.0, 2.0, 3.0], class_weight="balanced", extractor=shallow)


def test_groups_of_a_dataset_come_from_its_table(old_and_new, shallow):
    paths = sorted((old_and_new / "old").rglob("*.png"))
    rows = [f"{path.relative_to(old_and_new)},{path.parent.name},{i // 2}" for i, path in enumerate(paths)]
    (old_and_new / "t.csv").write_text("\n".join(["path,label,patient", *rows]))
    featx.dataset.embed("t.csv", "vectors", extractor=shallow.fit(None))
    result = featx.fit("vectors", head="knn", groups="patient", cv=3)
    assert "groups on one side" in result.score.how
    with pytest.raises(InputError, match="groups='doctor': no such column in vectors"):
        featx.fit("vectors", head="knn", groups="doctor")
