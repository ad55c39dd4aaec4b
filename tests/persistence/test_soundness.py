import io
import json
import zipfile

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

import featx
from featx.persistence.soundness import check_parts, find_parts
from tests.tools import rewrite

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.repeat([0, 1, 2], 20)
X[:, 0] += Y


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.featx"


def load_evil(estimator, path):
    """Write a file as somebody might who does not use featx.save, and load it."""
    featx.save(LogisticRegression().fit(X, Y), path)
    rewrite(path, lambda members: members | {"pipeline.skops": skops.io.dumps(estimator)})
    return featx.load(path)


def change_tree(tree, **changes):
    """Set fields of all inner nodes, or entries of the state, of a tree."""
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    inner = nodes["left_child"] != -1
    for name in set(changes) & set(nodes.dtype.names):
        nodes[name][inner] = changes[name]
    entries = {name: value for name, value in changes.items() if name in state}
    tree.__setstate__(state | {"nodes": nodes} | entries)


TREES = [
    {"left_child": 10**9},
    {"right_child": 10**9},
    {"left_child": 0},
    {"right_child": -5},
    {"feature": 10**6},
    {"feature": -3},
    {"max_depth": 0},
]


@pytest.mark.parametrize("changes", TREES, ids=str)
@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(),
        RandomForestClassifier(2),
        GradientBoostingClassifier(n_estimators=2),
        IsolationForest(n_estimators=2, max_features=0.5),
        make_pipeline(CalibratedClassifierCV(BaggingClassifier(n_estimators=2), cv=2)),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_tree_that_points_outside_or_back_is_refused(estimator, changes, path):
    estimator.fit(X, Y)
    for part in find_parts(estimator):
        if hasattr(part, "tree_"):
            change_tree(part.tree_, **changes)
    with pytest.raises(featx.PipelineFileError, match="damaged pipeline"):
        load_evil(estimator, path)


def zip_of(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def forest_with_a_wider_tree():
    forest = RandomForestClassifier(3).fit(X, Y)
    forest.estimators_[1] = RandomForestClassifier(1).fit(np.tile(X, 99), Y).estimators_[0]
    return forest


def boosting_with_more_outputs():
    boosting = GradientBoostingClassifier(n_estimators=2).fit(X, Y)
    boosting.estimators_ = np.repeat(boosting.estimators_, 50, axis=1)
    return boosting


def isolation_with_fewer_features():
    forest = IsolationForest(n_estimators=2).fit(X)
    forest.estimators_features_ = [np.arange(2)] * 2
    forest._max_features = 2
    return forest


def histogram_boosting(**changes):
    boosting = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=3).fit(X, Y)
    nodes = boosting._predictors[0][0].nodes
    for name, value in changes.items():
        nodes[name][nodes["is_leaf"] == 0] = value
    return boosting


def neighbor_tree(place, change, estimator=KNeighborsClassifier, **parameters):
    fitted = estimator(**parameters).fit(X, Y)
    tree = fitted.tree_ if hasattr(fitted, "tree_") else fitted._tree
    state = list(tree.__getstate__())
    state[place] = change(state[place])
    tree.__setstate__(tuple(state))
    return fitted


def edited(field, value):
    def change(nodes):
        nodes = np.array(nodes)
        nodes[field] = value
        return nodes

    return change


def support_vectors(estimator, **changes):
    estimator.fit(X, Y)
    vars(estimator).update({name: change(getattr(estimator, name)) for name, change in changes.items()})
    return estimator


def labels_out_of_range():
    classifier = KNeighborsClassifier(algorithm="brute").fit(X, Y)
    classifier._y = classifier._y + 10**9
    return classifier


def sparse_neighbors():
    classifier = KNeighborsClassifier(algorithm="brute").fit(scipy.sparse.csr_matrix(X), Y)
    classifier._fit_X.indices[:] = 10**6
    return classifier


def without_a_method():
    tree = DecisionTreeClassifier().fit(X, Y)
    tree._validate_X_predict = np.asarray
    return tree


def narrow_centers():
    clusters = KMeans(2).fit(X)
    clusters.cluster_centers_ = clusters.cluster_centers_[:, :1].copy()
    return clusters


def short_spline():
    splines = SplineTransformer().fit(X)
    splines.bsplines_[0]._t = splines.bsplines_[0].t[:3]
    return splines


EVIL = {
    "a tree of a forest with more features": forest_with_a_wider_tree,
    "boosting with more outputs": boosting_with_more_outputs,
    "isolation trees with fewer features": isolation_with_fewer_features,
    "histogram trees that loop": lambda: histogram_boosting(left=0),
    "histogram trees that leave": lambda: histogram_boosting(right=10**6),
    "histogram trees of other features": lambda: histogram_boosting(feature_idx=10**6),
    "histogram trees of categories": lambda: histogram_boosting(is_categorical=1, bitset_idx=10**6),
    "ball tree indices": lambda: neighbor_tree(1, lambda index: index + 10**9, algorithm="ball_tree"),
    "ball tree nodes": lambda: neighbor_tree(2, edited("idx_end", 10**9), algorithm="ball_tree", leaf_size=5),
    "k-d tree leaves": lambda: neighbor_tree(2, edited("is_leaf", 0), algorithm="kd_tree", leaf_size=5),
    "k-d tree bounds": lambda: neighbor_tree(3, lambda bounds: bounds[:, :, :1].copy(), algorithm="kd_tree"),
    "k-d tree number of nodes": lambda: neighbor_tree(6, lambda n: n + 10**6, algorithm="kd_tree"),
    "density tree": lambda: neighbor_tree(1, lambda index: index + 10**9, KernelDensity),
    "support vectors": lambda: support_vectors(SVC(), _n_support=lambda n: n * 1000),
    "support coefficients": lambda: support_vectors(SVC(), _dual_coef_=lambda values: values[:, :1].copy()),
    "support vector regression": lambda: support_vectors(SVR(), support_=lambda places: places[:1].copy()),
    "labels of neighbors": labels_out_of_range,
    "sparse neighbors": sparse_neighbors,
    "an attribute instead of a check": without_a_method,
    "narrow centers": narrow_centers,
    "a spline without knots": short_spline,
}


@pytest.mark.parametrize("make", EVIL.values(), ids=EVIL)
def test_parts_that_compiled_code_would_believe_are_refused(make, path):
    with pytest.raises(featx.PipelineFileError, match="damaged pipeline"):
        load_evil(make(), path)


def test_sound_parts_pass():
    for estimator in (
        RandomForestClassifier(2),
        HistGradientBoostingClassifier(max_iter=2),
        SVC(),
        KNeighborsClassifier(),
    ):
        check_parts(estimator.fit(X, Y))


@pytest.mark.parametrize("n_bytes", [100 << 20])
def test_a_schema_that_would_unpack_to_a_huge_size_is_refused(n_bytes, path):
    featx.save(LogisticRegression().fit(X, Y), path)
    bomb = zip_of({"schema.json": b" " * n_bytes}, zipfile.ZIP_DEFLATED)
    rewrite(path, lambda members: members | {"pipeline.skops": bomb})
    with pytest.raises(featx.PipelineFileError, match="would unpack to 104,857,600 bytes"):
        featx.load(path)
    with pytest.raises(featx.PipelineFileError, match="would unpack"):
        featx.describe_file(path)


def test_an_archive_in_the_archive_counts(path):
    featx.save(LogisticRegression().fit(X, Y), path)
    inner = zip_of({"data.npy": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    rewrite(path, lambda members: members | {"pipeline.skops": zip_of({"schema.json": "{}", "a.npz": inner})})
    with pytest.raises(featx.PipelineFileError, match="would unpack"):
        featx.load(path)


def test_a_few_references_that_stand_for_billions_of_objects_are_refused(path):
    featx.save(FunctionTransformer(), path)
    node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [], "__id__": 1}
    for i in range(2, 60):
        node = {**node, "content": [node, {"__id__": i - 1}], "__id__": i}
    schema = json.dumps(node | {"protocol": 2})
    rewrite(path, lambda members: members | {"pipeline.skops": zip_of({"schema.json": schema})})
    with pytest.raises(featx.PipelineFileError, match="an object refers to another one"):
        featx.load(path)
