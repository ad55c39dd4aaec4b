import io
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import skops.io
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    TunedThresholdClassifierCV,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

import featx
from featx.backbones import open_backbone
from featx.heads import HEADS, make_head
from featx.persistence import archive
from tests.tools import rewrite, rewrite_about

X, Y = featx.samples.load_fashion_mnist("test")
KEEP = np.isin(Y, ["bag", "trouser", "sandal"])
X, Y = [x for x, keep in zip(X, KEEP, strict=True) if keep][::3], Y[KEEP][::3]
EXTRACTOR = featx.FeatureExtractor().fit(None)
FEATURES = EXTRACTOR.transform(X)


def pipeline_with(head, target=Y):
    return Pipeline([("features", EXTRACTOR), ("head", head.fit(FEATURES, target))])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.featx"
    featx.save(pipeline_with(make_head()), path, info={"task": "classification"})
    return path


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.heavy) if n in ("gradient_boosting", "mlp") else n for n in HEADS],
)
def test_every_classifier_comes_back_the_same(name, tmp_path):
    pipeline = pipeline_with(make_head(name))
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(
        featx.load(tmp_path / "m.featx").predict_proba(X), pipeline.predict_proba(X), strict=True
    )


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.regressor])
@pytest.mark.heavy
def test_every_regressor_comes_back_the_same(name, log_target, tmp_path):
    target = np.linspace(1, 9, len(X))
    pipeline = pipeline_with(make_head(name, task="regression", log_target=log_target), target)
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(X), pipeline.predict(X))


@pytest.mark.parametrize(
    "pipeline",
    [
        make_pipeline(featx.FeatureExtractor(), StandardScaler(), CalibratedClassifierCV(SVC(), ensemble=False)),
        GridSearchCV(make_pipeline(featx.FeatureExtractor(), StandardScaler(), SVC()), {"svc__C": [1, 10]}, cv=2),
        make_pipeline(
            FeatureUnion([("a", featx.FeatureExtractor()), ("b", featx.FeatureExtractor(layer="stage2"))]), SVC()
        ),
        make_pipeline(featx.FeatureExtractor(), VotingClassifier([("a", SVC()), ("b", LogisticRegression(C=1e-3))])),
        make_pipeline(featx.FeatureExtractor(), StackingClassifier([("a", SVC()), ("b", LogisticRegression(C=1e-3))])),
        TransformedTargetRegressor(make_pipeline(featx.FeatureExtractor(), Ridge()), func=np.log, inverse_func=np.exp),
    ],
    ids=["calibrated", "grid search", "union", "voting", "stacking", "log target"],
)
def test_pipelines_that_people_write_come_back_the_same(pipeline, tmp_path):
    numbers = isinstance(pipeline, TransformedTargetRegressor)
    pipeline.fit(np.array(X, dtype=object), np.linspace(1, 9, len(X)) if numbers else Y)
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(X), pipeline.predict(X))


@pytest.mark.heavy
def test_another_process_gets_the_same_answers(saved, tmp_path):
    code = (
        "import sys, json, featx\n"
        "X = featx.samples.load_fashion_mnist('test')[0]\n"
        "print(json.dumps(featx.load(sys.argv[1]).predict_proba(X[:5]).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True, timeout=240)
    expected = featx.load(saved).predict_proba(featx.samples.load_fashion_mnist("test")[0][:5])
    np.testing.assert_array_equal(json.loads(done.stdout), expected)


def test_the_file_holds_no_pickle_and_is_small(saved):
    with zipfile.ZipFile(saved) as archive:
        assert archive.namelist() == ["featx.json", "pipeline.skops"]
        inner = zipfile.ZipFile(io.BytesIO(archive.read("pipeline.skops")))
        assert {os.path.splitext(name)[1] for name in inner.namelist()} <= {".json", ".npy", ".npz"}
    assert saved.stat().st_size < 2_000_000


def test_the_file_says_what_made_it(saved):
    about = featx.read_info(saved)
    assert about["format"] == 1
    assert about["versions"]["featx"] == featx.__version__
    assert "scikit-learn" in about["versions"]
    (backbone,) = about["backbones"]
    assert (backbone["name"], backbone["identity"]) == ("efficientnet_lite0", EXTRACTOR.backbone_identity_)
    assert backbone["license"] == "Apache-2.0"
    assert about["created"].startswith("20")
    assert about["created"].endswith("+00:00")
    assert about["pipeline"]["task"] == "classification"
    assert about["pipeline"]["classes"] == sorted(set(Y.tolist()))
    assert about["pipeline"]["estimator"].startswith("Pipeline\n")
    assert about["pipeline"]["features"][0]["layer"] == ["head"]
    assert about["answers"]["method"] == "predict_proba"
    assert about["info"] == {"task": "classification"}


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_what_asks_for_other_types_is_refused_by_name(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = Pipeline([("features", EXTRACTOR), ("evil", FunctionTransformer(os.system))])
    rewrite(saved, lambda members: members | {"pipeline.skops": skops.io.dumps(evil)})
    with pytest.raises(featx.UntrustedTypeError, match=r"not trusted: posix\.system"):
        featx.load(saved)
    with pytest.raises(featx.UntrustedTypeError, match=r"posix\.system"):
        featx.save(evil, tmp_path / "evil.featx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.featx"]


def test_an_own_class_is_refused_when_saving_already(tmp_path):
    class Mine(StandardScaler):
        pass

    with pytest.raises(featx.UntrustedTypeError, match="Mine"):
        featx.save(make_pipeline(EXTRACTOR, Mine().fit(FEATURES)), tmp_path / "m.featx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all"])
def test_what_is_no_pipeline_is_named(tmp_path, content):
    path = tmp_path / "m.featx"
    path.write_bytes(content)
    for read in (featx.load, featx.read_info):
        with pytest.raises(featx.PipelineFileError, match=r"m\.featx: not a pipeline saved by featx, or damaged"):
            read(path)


def test_a_cut_file_is_named(saved):
    saved.write_bytes(saved.read_bytes()[:-200])
    with pytest.raises(featx.PipelineFileError, match=r"model\.featx"):
        featx.load(saved)


@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_flipped_bytes_never_give_another_pipeline(saved, position):
    content = bytearray(saved.read_bytes())
    start = int(len(content) * position)
    content[start : start + 64] = bytes(64)
    saved.write_bytes(content)
    with pytest.raises(featx.PipelineFileError):
        featx.load(saved)


def test_a_newer_format_says_upgrade(saved):
    newer = json.dumps({"format": 2}).encode()
    rewrite(saved, lambda members: members | {"featx.json": newer})
    with pytest.raises(featx.PipelineFileError, match="pipeline format 2, this featx reads 1; upgrade featx"):
        featx.load(saved)


def test_an_unfitted_extractor_is_refused(tmp_path):
    with pytest.raises(featx.PipelineFileError, match="is not fitted; call fit before save"):
        featx.save(make_pipeline(featx.FeatureExtractor(), StandardScaler()), tmp_path / "m.featx")


def fitted_with(backbone):
    extractor = featx.FeatureExtractor(backbone).fit(None)
    return Pipeline([("features", extractor), ("head", make_head("knn").fit(extractor.transform(X), Y))])


def test_a_backbone_that_moved_is_found_by_its_identity(tmp_path, other_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "cache"))
    here = tmp_path / "here.onnx"
    here.write_bytes(other_backbone.read_bytes())
    pipeline = fitted_with(here)
    expected = pipeline.predict_proba(X)
    featx.save(pipeline, tmp_path / "m.featx")
    here.unlink()
    with pytest.raises(featx.BackboneError, match="is not on this machine; pass its file"):
        featx.load(tmp_path / "m.featx")

    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx", backbone=other_backbone).predict_proba(X), expected)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "another-name.onnx").write_bytes(other_backbone.read_bytes())
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict_proba(X), expected)


def test_another_backbone_under_the_same_name_is_refused(tmp_path, other_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "cache"))
    here = tmp_path / "here.onnx"
    here.write_bytes(other_backbone.read_bytes())
    featx.save(fitted_with(here), tmp_path / "m.featx")
    here.write_bytes(open_backbone("efficientnet_lite0").path.read_bytes())
    with pytest.raises(featx.BackboneError, match="not on this machine"):
        featx.load(tmp_path / "m.featx")
    with pytest.raises(featx.BackboneError, match="is not the backbone that"):
        featx.load(tmp_path / "m.featx", backbone="efficientnet_lite0")


def test_an_embedded_backbone_travels_with_the_file(tmp_path, other_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "cache"))
    here = tmp_path / "here.onnx"
    here.write_bytes(other_backbone.read_bytes())
    pipeline = fitted_with(here)
    expected = pipeline.predict_proba(X)
    featx.save(pipeline, tmp_path / "m.featx", embed_backbone=True)
    here.unlink()
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict_proba(X), expected)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_swapped_embedded_backbone_is_refused(tmp_path, other_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "cache"))
    here = tmp_path / "here.onnx"
    here.write_bytes(other_backbone.read_bytes())
    featx.save(fitted_with(here), tmp_path / "m.featx", embed_backbone=True)
    here.unlink()
    bundled = open_backbone("efficientnet_lite0").path.read_bytes()
    rewrite(tmp_path / "m.featx", lambda m: {n: bundled if n.startswith("backbones/") else c for n, c in m.items()})
    with pytest.raises(featx.PipelineFileError, match="not the one it was fitted with"):
        featx.load(tmp_path / "m.featx")
    assert not list((tmp_path / "cache").glob("*"))


def test_the_pipeline_keeps_refusing_other_features_after_loading(saved):
    loaded = featx.load(saved).set_params(features__pooling="max")
    with pytest.raises(featx.FeaturesChangedError):
        loaded.predict(X[:1])


@pytest.mark.parametrize("identity", [None, 5, "../../elsewhere", "/tmp/elsewhere", "0" * 63])
def test_an_identity_that_is_none_is_refused(tmp_path, identity):
    pipeline = pipeline_with(make_head("knn"))
    featx.save(pipeline, tmp_path / "m.featx")
    evil = Pipeline([("features", clone(EXTRACTOR)), ("head", pipeline[-1])])
    if identity is not None:
        evil[0].backbone_identity_ = identity
    rewrite(tmp_path / "m.featx", lambda members: members | {"pipeline.skops": skops.io.dumps(evil)})
    if identity is not None:
        with pytest.raises(featx.PipelineFileError, match="without the identity of its backbone"):
            featx.load(tmp_path / "m.featx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.featx"]


@pytest.mark.parametrize("member", ["featx.json", "pipeline.skops"])
def test_members_that_could_unpack_to_any_size_are_refused(saved, member):
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name == member else zipfile.ZIP_STORED)
    with pytest.raises(featx.PipelineFileError, match="is compressed"):
        featx.load(saved)


@pytest.mark.parametrize("about", [{}, {"format": 1}, {"format": 1, "versions": {}, "backbones": [], "info": 3}, []])
def test_a_description_with_holes_is_refused(saved, about):
    rewrite(saved, lambda members: members | {"featx.json": json.dumps(about).encode()})
    for read in (featx.load, featx.read_info):
        with pytest.raises(featx.PipelineFileError, match="damaged"):
            read(saved)


def test_a_backbone_without_a_cache_to_unpack_to(tmp_path, other_backbone, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "file" / "cache"))
    here = tmp_path / "here.onnx"
    here.write_bytes(other_backbone.read_bytes())
    pipeline = fitted_with(here)
    featx.save(pipeline, tmp_path / "m.featx", embed_backbone=True)
    expected = pipeline.predict_proba(X)
    here.unlink()
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict_proba(X), expected)


def test_calibration_around_the_whole_pipeline(tmp_path):
    inner = make_pipeline(featx.FeatureExtractor(), StandardScaler(), SVC())
    pipeline = CalibratedClassifierCV(inner, cv=2).fit(np.array(X, dtype=object), Y)
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict_proba(X), pipeline.predict_proba(X))


SAVED = sorted((Path(__file__).parents[1] / "saved").glob("*.featx"))


def test_files_of_every_version_are_kept():
    assert len(SAVED) >= 5
    assert {featx.read_info(path)["format"] for path in SAVED} == set(range(1, archive.FORMAT_VERSION + 1))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_version_still_answers_the_same(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pipeline = featx.load(path)
    told = "answers" not in featx.read_info(path) and featx.read_info(path)["versions"]["scikit-learn"] != sklearn_now()
    assert len(warned) == told
    images = featx.samples.load_fashion_mnist("test")[0][1:9]
    assert pipeline.predict(images).tolist() == expected["predict"]
    np.testing.assert_allclose(pipeline.predict_proba(images), expected["predict_proba"], atol=1e-4)


def sklearn_now():
    return metadata.version("scikit-learn")


def test_under_another_scikit_learn_a_pipeline_must_answer_as_before(saved):
    rewrite_about(saved, lambda about: about["versions"].update({"scikit-learn": "1.2.3"}))
    featx.load(saved)  # the same answers: nothing to say
    rewrite_about(saved, lambda about: about["answers"].update(values=[x + 0.01 for x in about["answers"]["values"]]))
    message = r"differ by up to 0\.01; saved under scikit-learn 1\.2\.3, this is .*: fit again, or pip install scikit"
    with pytest.raises(featx.PipelineFileError, match=message):
        featx.load(saved)
    rewrite_about(saved, lambda about: about.pop("answers"))
    with pytest.warns(UserWarning, match=r"under scikit-learn 1\.2\.3.*holds no predictions to compare with"):
        featx.load(saved)


def test_a_class_that_has_moved_between_releases_is_refused_with_both_named(saved, monkeypatch):
    monkeypatch.setattr("featx.persistence.serialization.TRUSTED", frozenset())
    monkeypatch.setattr("featx.persistence.serialization.list_trusted", frozenset)
    with pytest.raises(featx.UntrustedTypeError, match=r"not trusted: featx\.extractor\.FeatureExtractor"):
        featx.load(saved)
    rewrite_about(saved, lambda about: about["versions"].update({"scikit-learn": "1.2.3"}))
    with pytest.raises(featx.UntrustedTypeError, match=r"saved under scikit-learn 1\.2\.3.*fit again, or pip install"):
        featx.load(saved)


def test_a_pipeline_that_another_scikit_learn_cannot_rebuild_names_both(saved, monkeypatch):
    rewrite_about(saved, lambda about: about["versions"].update({"scikit-learn": "0.9; rm -rf /"}))
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: {}["gone"])
    with pytest.raises(
        featx.PipelineFileError, match=r"cannot be rebuilt \(KeyError: 'gone'\); saved under scikit-learn"
    ):
        featx.load(saved)
    with pytest.raises(featx.PipelineFileError, match=r"pip install scikit-learn==0\.9rm-rf$"):
        featx.load(saved)


def test_what_a_file_would_trust_is_listed_without_loading_it(saved, monkeypatch):
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("loaded"))
    trusted, refused = archive.list_types(saved)
    assert "featx.extractor.FeatureExtractor" in trusted
    assert refused == []
    rewrite(saved, lambda members: members | {"pipeline.skops": skops.io.dumps(FunctionTransformer(os.system))})
    assert archive.list_types(saved)[1] == ["posix.system"]


@pytest.mark.parametrize(
    "search",
    [
        GridSearchCV(LogisticRegression(C=1e-3), {"C": [1e-3, 1e-2]}, scoring="accuracy", cv=2),
        GridSearchCV(
            LogisticRegression(C=1e-3), {"C": [1e-3, 1e-2]}, scoring=make_scorer(f1_score, average="macro"), cv=2
        ),
        GridSearchCV(LogisticRegression(C=1e-3), {"C": [1e-3, 1e-2]}, scoring="neg_log_loss", cv=2),
        TunedThresholdClassifierCV(LogisticRegression(C=1e-3), cv=2),
    ],
    ids=["accuracy", "make_scorer", "probabilities", "threshold"],
)
def test_a_search_with_a_scoring_comes_back_the_same(search, tmp_path):
    pipeline = pipeline_with(search, Y == "bag")
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(X), pipeline.predict(X))


@pytest.mark.parametrize(
    "cv",
    [GroupKFold(2), StratifiedGroupKFold(2), LeaveOneGroupOut()],
    ids=lambda cv: type(cv).__name__,
)
def test_a_search_over_groups_comes_back_the_same(cv, tmp_path):
    search = GridSearchCV(LogisticRegression(C=1e-3), {"C": [1e-3, 1e-2]}, cv=cv)
    search.fit(FEATURES, Y, groups=np.arange(len(X)) % 4)
    pipeline = Pipeline([("features", EXTRACTOR), ("head", search)])
    featx.save(pipeline, tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(X), pipeline.predict(X))


def test_a_search_that_cannot_be_saved_names_the_part_that_can(tmp_path):
    search = RandomizedSearchCV(LogisticRegression(), {"C": loguniform(1e-4, 1e-2)}, n_iter=2, cv=2, random_state=0)
    whole = pipeline_with(search)
    with pytest.raises(featx.UntrustedTypeError, match=r"param_distributions of .*place of Rand.*save its best_estima"):
        featx.save(whole, tmp_path / "m.featx")
    with pytest.raises(featx.UntrustedTypeError, match=r"; save its best_estimator_ instead$"):
        featx.save(search, tmp_path / "m.featx")
    featx.save(Pipeline([("features", EXTRACTOR), ("head", search.best_estimator_)]), tmp_path / "m.featx")


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (FunctionTransformer(lambda X: X), r"<lambda> \(func of FunctionTransformer\); a file holds no code"),
        (SelectKBest(lambda X, y: f_classif(X, y)), r"<lambda> \(score_func of SelectKBest\); a file holds no code"),
        (FunctionTransformer(kw_args={"file": sys.__stdout__}), r"cannot be saved \(TypeError.*a file holds no code"),
    ],
    ids=["lambda", "score function", "open file"],
)
def test_code_and_open_files_are_refused_with_advice(step, match, tmp_path):
    step.n_features_in_ = FEATURES.shape[1]
    with pytest.raises(featx.PipelineFileError, match=match):
        featx.save(make_pipeline(EXTRACTOR, step), tmp_path / "m.featx")
    assert not list(tmp_path.iterdir())


def test_parameters_of_the_machine_do_not_travel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extractor = featx.FeatureExtractor(cache="mine", n_threads=1, n_jobs=1, device="cpu", progress=True).fit(None)
    head = BaggingClassifier(KNeighborsClassifier(n_jobs=2), n_estimators=2, n_jobs=1, verbose=1, random_state=0)
    head.verbose = 0
    pipeline = Pipeline([("features", extractor), ("head", head.fit(FEATURES, Y))], memory="folder", verbose=True)
    featx.save(pipeline, "m.featx")
    assert (extractor.cache, extractor.n_threads, pipeline.memory) == ("mine", 1, "folder")
    assert b"mine" not in zipfile.ZipFile("m.featx").read("pipeline.skops")
    # a file that somebody made by other means
    rewrite("m.featx", lambda members: members | {"pipeline.skops": skops.io.dumps(pipeline)})
    for folder in tmp_path.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    loaded = featx.load("m.featx")
    assert loaded[0].get_params() == featx.FeatureExtractor().get_params()
    assert (loaded.memory, loaded.verbose, loaded[-1].n_jobs, loaded[-1].estimator.n_jobs) == (None, False, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["m.featx"]


def test_a_pipeline_with_large_constant_arrays_is_saved(tmp_path):
    head = make_head("knn").fit(FEATURES, Y)
    head.ballast_ = np.zeros(4_000_000)
    pipeline = Pipeline([("features", EXTRACTOR), ("head", head)])
    featx.save(pipeline, tmp_path / "m.featx")
    assert featx.load(tmp_path / "m.featx")[-1].ballast_.shape == (4_000_000,)
