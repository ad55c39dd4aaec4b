import inspect
import io
import warnings
import zipfile

import numpy as np
import pytest
from sklearn import feature_selection, model_selection
from sklearn.datasets import load_files
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances

import featx
from featx.persistence import trust
from tests.tools import rewrite

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(40, 5)))
Y = np.repeat([0, 1], 20)
X[Y == 1] += 1
OTHER_INPUTS = {
    **dict.fromkeys(("ClassifierChain", "MultiOutputClassifier"), (X, np.c_[Y, Y])),
    **dict.fromkeys(("RegressorChain", "MultiOutputRegressor"), (X, np.c_[Y, Y] * 1.0)),
    **{f"MultiTask{name}": (X, np.c_[Y, Y] * 1.0) for name in ("ElasticNet", "ElasticNetCV", "Lasso", "LassoCV")},
    **{name: (["aa bb", "bb cc"] * 20,) for name in ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")},
    **dict.fromkeys(("LabelBinarizer", "LabelEncoder"), (Y,)),
    **{"DictVectorizer": ([{"a": 1}, {"b": 2}] * 20,), "MultiLabelBinarizer": ([("a", "b"), ("b",)],)},
    **{"GammaRegressor": (X, Y + 1.0), "IsotonicRegression": (X[:, 0], Y), "KernelCenterer": (X @ X.T,)},
    **{"FeatureHasher": ([{"a": 1}, {"b": 2}] * 20,)},
    **{"SparseCoder": (X[:, :3],), "PatchExtractor": (RNG.uniform(size=(4, 10, 10)),)},
}


def check(estimator, path, X):
    """Save, load and compare."""
    featx.save(estimator, path)
    loaded = featx.load(path)
    assert type(loaded) is type(estimator)
    for method in ("predict_proba", "decision_function", "predict", "transform", "score_samples"):
        if hasattr(estimator, method):
            before, after = getattr(estimator, method)(X), getattr(loaded, method)(X)
            before, after = (each.toarray() if hasattr(each, "toarray") else each for each in (before, after))
            np.testing.assert_allclose(before, after, rtol=1e-9, atol=1e-12)


def check_estimators(names, path, n_instances=None):
    kinds = dict(all_estimators())
    for name in names:
        data, *rest = OTHER_INPUTS.get(name, (X, Y))
        if name == "FrozenEstimator":
            instances = [kinds[name](LogisticRegression().fit(X, Y))]
        else:
            instances = list(_construct_instances(kinds[name]))[:n_instances]
        for estimator in instances:
            square = data
            if name in ("BernoulliRBM", "DummyClassifier"):  # they draw at random when they predict
                estimator.set_params(random_state=0)
            try:
                estimator.fit(data, *rest)
            except ValueError:  # an instance for distances or kernels
                square = data @ data.T
                estimator.fit(square, *rest)
            if name == "Birch":
                with pytest.raises(featx.PipelineFileError, match=r"not supported.*a file holds no code"):
                    featx.save(estimator, path)
            else:
                check(estimator, path, square)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.featx"


def test_an_estimator_of_every_kind_comes_back_the_same(path):
    check_estimators([name for name, _ in all_estimators()][::10], path, 1)


@pytest.mark.heavy
def test_every_estimator_of_scikit_learn_comes_back_the_same(path):
    check_estimators([name for name, _ in all_estimators()], path)


def list_splitters():
    arguments = {"PredefinedSplit": {"test_fold": np.arange(40) % 2}, "LeavePGroupsOut": {"n_groups": 2}}
    for name in model_selection.__all__:
        kind = getattr(model_selection, name)
        if isinstance(kind, type) and hasattr(kind, "split") and not inspect.isabstract(kind):
            known = inspect.signature(kind).parameters
            defaults = {"random_state": 0, "n_splits": 2, "shuffle": True, "p": 2}
            seed = {key: value for key, value in defaults.items() if key in known}
            yield kind(**seed | arguments.get(name, {}))


def test_every_splitter_is_saved_with_its_search(path):
    search = GridSearchCV(Ridge(), {"alpha": [1]}, cv=2).fit(X, Y)
    names = set()
    for search.cv in list_splitters():
        names.add(type(search.cv).__name__)
        featx.save(search, path)
        groups = np.arange(40) % 4
        before, after = ([test for _, test in cv.split(X, Y, groups)] for cv in (search.cv, featx.load(path).cv))
        assert [test.tolist() for test in before] == [test.tolist() for test in after]
    assert {"GroupKFold", "StratifiedGroupKFold", "LeaveOneGroupOut", "TimeSeriesSplit"} <= names


def test_every_scorer_is_saved_with_its_search(path):
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2, scoring="accuracy").fit(X, Y)
    for name in get_scorer_names():
        search.scoring = name
        search.scorer_ = model_selection._search.check_scoring(search.estimator, scoring=name)
        featx.save(search, path)
        assert repr(featx.load(path).scorer_) == repr(search.scorer_)


@pytest.mark.parametrize(
    "name", [name for name in feature_selection.__all__ if name.islower() and name not in ("r_regression", "f_oneway")]
)
def test_every_score_function_is_saved_with_its_selector(name, path):
    check(SelectKBest(getattr(feature_selection, name), k=2).fit(X, Y), path, X)


@pytest.mark.parametrize("function", [np.clip, np.log1p, np.sqrt, np.nan_to_num, np.asarray, np.square])
def test_functions_of_numpy_are_saved_by_name(function, path):
    bounds = {"a_min": 0, "a_max": 1} if function is np.clip else {}
    check(make_pipeline(FunctionTransformer(function, kw_args=bounds), LogisticRegression()).fit(X, Y), path, X)


@pytest.mark.parametrize("function", [np.load, np.save, np.fromfile, np.vectorize, load_files, exec, open])
def test_functions_that_do_more_than_compute_are_refused(function, path):
    with pytest.raises(featx.UntrustedTypeError, match=r"func of FunctionTransformer"):
        featx.save(FunctionTransformer(function), path)


def test_a_trusted_function_may_be_named_and_not_called(path):
    featx.save(FunctionTransformer(np.asarray), path)

    def call(members):
        schema = '{"__class__": "asarray", "__module__": "numpy", "__loader__": "ConstructorFromReduceNode", "content":'
        schema += '{"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []}, '
        return members | {"pipeline.skops": zip_of({"schema.json": schema + '"protocol": 2}'})}

    rewrite(path, call)
    with pytest.raises(featx.UntrustedTypeError, match=r"numpy\.asarray; the file would call them"):
        featx.load(path)


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_the_rules_name_no_more_than_they_mean():
    names = trust.list_trusted()
    allowed = ("builtins.", "featx.", "functools.partial", "numpy.", "pathlib.", "scipy.", "sklearn.")
    assert all(name.startswith(allowed) for name in names)
    parts = {part for name in names for part in name.split(".")}
    assert not parts & {"tests", "_testing", "datasets", "externals", "os", "subprocess", "joblib", "load", "exec"}
    assert not any(name.partition(".")[2] in ("warnings", "partial") for name in names if name.startswith("sklearn."))
    assert "sklearn.metrics._dist_metrics.PyFuncDistance64" not in names
