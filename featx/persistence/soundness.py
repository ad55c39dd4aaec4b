"""Check a saved pipeline from a stranger: its size before it is unpacked, and its compiled parts after it is loaded.

Compiled code of scikit-learn and SciPy follows the indices in a fitted model without checking them. A number out of
range would crash the process, and a tree whose nodes point back would never end. All checks raise ValueError.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse
from scipy.interpolate import BSpline
from sklearn.base import BaseEstimator
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.ensemble import (
    BaseEnsemble,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.neighbors import BallTree, KDTree
from sklearn.neighbors._base import NeighborsBase
from sklearn.svm._base import BaseLibSVM, BaseSVC
from sklearn.tree import BaseDecisionTree

from featx.persistence.trust import is_function
from featx.text import TokenAnalyzer

__all__ = ["MAX_RATIO", "check_parts", "check_schema", "check_sizes", "find_parts"]

#: Maximum number of bytes to which a file may unpack: this number for each of its own bytes, plus a constant. Forests
#: need 11 for each byte.
MAX_RATIO = 30
_MAX_BYTES = 16 << 20
_NAMING_LOADERS = ("FunctionNode", "TypeNode")


def check_sizes(content: bytes) -> None:
    """Check the sizes in a zip archive, and in archives in it, before anything is unpacked."""
    limit = MAX_RATIO * len(content) + _MAX_BYTES
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        total = _count_bytes(archive, limit)
        for member in archive.infolist():
            with archive.open(member) as file:
                if file.read(2) != b"PK":  # the start of a sparse matrix, which is an archive itself
                    continue
            with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                total += _count_bytes(inner, limit - total)


def _count_bytes(archive: zipfile.ZipFile, limit: int) -> int:
    total = sum(member.file_size for member in archive.infolist())
    if total > limit:
        raise ValueError(f"it would unpack to {total:,} bytes, more than {MAX_RATIO} times the size of the file")
    return total


def check_schema(content: bytes) -> list[str]:
    """Check that no object of the schema refers to itself, and return the names of functions that it would call.

    An object that occurs twice is written twice. A reference to an object of another size is not skops's work,
    and a few such references could stand for billions of objects.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
    sizes: dict[Any, int] = {}
    called: set[str] = set()

    def count(value: Any) -> int:
        if isinstance(value, list):
            return sum(map(count, value))
        if not isinstance(value, dict):
            return 0
        size = 1 + sum(map(count, value.values()))
        name = f"{value.get('__module__')}.{value.get('__class__')}"
        if value.get("__loader__") not in _NAMING_LOADERS and is_function(name):
            called.add(name)
        identity = value.get("__id__")
        if identity is not None and sizes.setdefault(identity, size) != size:
            raise ValueError("an object refers to another one that holds it")
        return size

    count(schema)
    return sorted(called)


def find_parts(thing: Any) -> Iterator[Any]:
    """Yield an object and all objects in it, each once: attributes, and members of lists, tuples, dicts and arrays."""
    waiting, seen = [thing], {id(thing)}
    kept = []  # an object that is made for this walk must live as long as its id counts as seen
    while waiting:
        part = waiting.pop()
        kept.append(part)
        yield part
        members = [each for each in _list_members(part) if not isinstance(each, _PLAIN) and id(each) not in seen]
        seen.update(map(id, members))
        waiting += members


_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, np.generic)


def _list_members(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    if isinstance(thing, np.ndarray):
        return thing.ravel().tolist() if thing.dtype == object else []
    return list(getattr(thing, "__dict__", {}).values())


def check_parts(pipeline: Any) -> None:
    """Check all parts of a loaded pipeline that compiled code reads."""
    parts = list(find_parts(pipeline))
    for part in parts:
        _check_attributes(part)
    boosters = []
    for part in parts:
        for kind, check in _CHECKS:
            if isinstance(part, kind):
                try:
                    check(part)
                except (AttributeError, IndexError, KeyError, TypeError) as error:  # an attribute of another kind
                    raise ValueError(f"{type(part).__name__}: {error}") from None
        if isinstance(part, _BOOSTERS) and hasattr(part, "estimators_"):
            boosters.append(part)
    for part in boosters:  # last, because these checks run estimators that must be sound themselves
        _check_boosting(part)


def _require(condition: Any, part: Any, text: str) -> None:
    if not condition:
        raise ValueError(f"{type(part).__name__}: {text}")


def _check_attributes(part: Any) -> None:
    """Check that no attribute takes the place of a method."""
    if isinstance(part, BaseEstimator):
        for name in vars(part):
            own = getattr(type(part), name, None)
            _require(not callable(own) or isinstance(own, type), part, f"the attribute {name} replaces a method")


def _check_tree(estimator: Any) -> None:
    if not hasattr(estimator, "tree_"):
        return
    tree = estimator.tree_
    # the arrays of a tree read its memory: its counts come first
    _require(1 <= tree.node_count <= tree.capacity, estimator, "its tree has more nodes than it holds")
    _require(tree.n_outputs >= 1 and tree.max_n_classes >= 1, estimator, "its tree has no outputs")
    _require(estimator.n_features_in_ == tree.n_features, estimator, "its tree has another number of features")
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    depth = _check_children(estimator, left, right, np.asarray(tree.feature), left == -1, tree.n_features)
    _require(depth <= tree.max_depth, estimator, "its tree is deeper than it claims")


def _check_children(part: Any, left: Any, right: Any, feature: Any, is_leaf: Any, n_features: int) -> int:
    """Check children and features of nodes, and return the depth of the tree."""
    n = len(left)
    inner = np.flatnonzero(~is_leaf)
    for children in (left[inner], right[inner]):
        _require(((children > inner) & (children < n)).all(), part, "a node of its tree points outside or back")
    used = feature[inner]
    _require(((used >= 0) & (used < n_features)).all(), part, "a node of its tree uses a feature that is not there")
    depth = np.zeros(n, int)
    for i in inner:
        for child in (left[i], right[i]):
            depth[child] = max(depth[child], depth[i] + 1)
    return int(depth.max(initial=0))


def _check_forest(ensemble: Any) -> None:
    """Check that every tree of a forest takes the features that the forest passes on without another check."""
    for i, estimator in enumerate(np.asarray(getattr(ensemble, "estimators_", []), dtype=object).ravel()):
        if not hasattr(estimator, "tree_"):
            continue
        n, n_all = estimator.n_features_in_, ensemble.n_features_in_
        if isinstance(ensemble, IsolationForest):
            n_given = min(n_all, len(ensemble.estimators_features_[i]))
            _require(n <= n_given, ensemble, "a tree has more features than it is given")
        elif hasattr(ensemble, "estimators_features_"):
            continue  # bagging lets each tree check its own input
        else:
            _require(n == n_all, ensemble, "a tree has another number of features")


def _check_boosting(booster: Any) -> None:
    """Check that the first predictions have a column for each tree of a stage."""
    shape = np.shape(booster.estimators_)
    trees_are_sound = len(shape) == 2 and shape[0] and all(hasattr(each, "tree_") for each in booster.estimators_.flat)
    _require(trees_are_sound, booster, "its trees are missing")
    try:
        first = booster._raw_predict_init(np.zeros((1, booster.n_features_in_), np.float32))
    except Exception as error:  # any error of a damaged estimator
        raise ValueError(f"{type(booster).__name__}: {error}") from None
    _require(np.shape(first) == (1, shape[1]), booster, "its trees have another number of outputs")


def _check_histogram_boosting(booster: Any) -> None:
    if not hasattr(booster, "_predictors"):
        return
    is_categorical = np.asarray(booster._bin_mapper.is_categorical_, bool)
    n_features = len(is_categorical)
    if getattr(booster, "_preprocessor", None) is None:
        _require(n_features == booster.n_features_in_, booster, "its bins have another number of features")
    else:
        row = booster._preprocessor.transform(np.zeros((1, booster.n_features_in_)))
        _require(np.shape(row) == (1, n_features), booster, "its bins have another number of features")
    for predictor in (each for stage in booster._predictors for each in stage):
        nodes = predictor.nodes
        _require(nodes.ndim == 1 and len(nodes), booster, "a tree has no nodes")
        left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
        _check_children(booster, left, right, feature, nodes["is_leaf"] != 0, n_features)
        split = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] != 0)]
        sets = (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets)
        for bits in sets:
            _require(np.ndim(bits) == 2 and bits.shape[1] == 8, booster, "its sets of categories are damaged")
            _require((split["bitset_idx"] < len(bits)).all(), booster, "a node uses a set that is not there")
        _require(is_categorical[split["feature_idx"]].all(), booster, "a node takes numbers for categories")


def _check_neighbor_tree(tree: Any) -> None:
    data, index, nodes, bounds, _, n_levels, n_nodes, *_, metric, weights = tree.__getstate__()
    n, n_features = np.shape(data)
    _require(n >= 1 and n_features >= 1, tree, "it holds no points")
    is_sound = len(index) == n and ((np.asarray(index) >= 0) & (np.asarray(index) < n)).all()
    _require(is_sound, tree, "an index points outside")
    _require(1 <= n_levels < 48 and n_nodes == 2**n_levels - 1 == len(nodes), tree, "it has another number of nodes")
    sides = 2 if isinstance(tree, KDTree) else 1
    _require(np.shape(bounds) == (sides, n_nodes, n_features), tree, "its bounds have another shape")
    start, end = nodes["idx_start"], nodes["idx_end"]
    _require(((start >= 0) & (start <= end) & (end <= n)).all(), tree, "a node points outside")
    is_last = 2 * np.arange(n_nodes) + 1 >= n_nodes
    _require((nodes["is_leaf"][is_last] != 0).all(), tree, "a node has children that are not there")
    _require(weights is None or len(weights) == n, tree, "it has another number of weights")
    metric._validate_data(np.asarray(data))
    matrix = np.asarray(metric.__getstate__()[2])
    _require(type(metric).__name__.rstrip("0123456789") != "MahalanobisDistance" or matrix.shape == (n_features,) * 2,
             tree, "its metric has another shape")  # fmt: skip


def _check_neighbors(estimator: Any) -> None:
    """Check the classes of a k-neighbors classifier, which compiled code counts."""
    if not hasattr(estimator, "_y") or not hasattr(estimator, "classes_") or not hasattr(estimator, "_fit_X"):
        return
    y = np.asarray(estimator._y)
    y = y.reshape(len(y), -1)
    classes = estimator.classes_ if isinstance(estimator.classes_, list) else [estimator.classes_]
    _require(y.shape[1] == len(classes) and len(y) == estimator._fit_X.shape[0], estimator, "its labels do not fit")
    for column, labels in zip(y.T, classes, strict=True):
        is_sound = np.issubdtype(column.dtype, np.integer) and ((column >= 0) & (column < len(labels))).all()
        _require(is_sound, estimator, "a label is not among its classes")


def _check_support_vectors(machine: Any) -> None:
    if not hasattr(machine, "support_vectors_"):
        return
    support, counts, vectors = np.asarray(machine.support_), np.asarray(machine._n_support), machine.support_vectors_
    n, n_classes = len(support), len(counts)
    _require("_impl" not in vars(machine), machine, "an attribute changes its kind")
    _require(n_classes >= 2 and counts.ndim == 1, machine, "its counts of support vectors are missing")
    if isinstance(machine, BaseSVC):
        is_sound = (counts >= 0).all() and counts.sum() == n and n_classes == len(machine.classes_)
        _require(is_sound, machine, "its counts of support vectors do not fit")
    is_kernel = machine.kernel == "precomputed" or callable(machine.kernel)
    _require(is_kernel or vectors.shape == (n, machine.n_features_in_), machine, "its support vectors do not fit")
    _require(((support >= 0) & (support < machine.shape_fit_[0])).all(), machine, "a support vector is not there")
    for name in ("_dual_coef_", "dual_coef_"):
        _require(np.shape(getattr(machine, name)) == (n_classes - 1, n), machine, f"{name} has another shape")
    n_pairs = n_classes * (n_classes - 1) // 2
    for name in ("_intercept_", "intercept_"):
        _require(np.size(getattr(machine, name)) == n_pairs, machine, f"{name} has another size")
    for name in ("_probA", "_probB"):
        _require(np.size(getattr(machine, name)) in (0, n_pairs), machine, f"{name} has another size")


def _check_centers(estimator: Any) -> None:
    centers, n = getattr(estimator, "cluster_centers_", None), getattr(estimator, "n_features_in_", None)
    if centers is not None and not scipy.sparse.issparse(centers):
        _require(np.ndim(centers) == 2 and centers.shape[1] == n, estimator, "its centers have other features")


def _check_spline(spline: Any) -> None:
    type(spline)(spline.t, spline.c, spline.k, extrapolate=spline.extrapolate, axis=spline.axis)
    _require(math.isfinite(float(np.sum(spline.t))), spline, "its knots are not finite")


def _check_sparse(matrix: Any) -> None:
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)
    elif matrix.format == "coo":
        for axis, places in enumerate(matrix.coords):
            is_sound = ((places >= 0) & (places < matrix.shape[axis])).all() and len(places) == len(matrix.data)
            _require(is_sound, matrix, "an index points outside")


_BOOSTERS = (GradientBoostingClassifier, GradientBoostingRegressor)
_Checks = tuple[tuple[type | tuple[type, ...], Callable[[Any], None]], ...]
_CHECKS: _Checks = (
    (BaseDecisionTree, _check_tree),
    (BaseEnsemble, _check_forest),
    ((HistGradientBoostingClassifier, HistGradientBoostingRegressor), _check_histogram_boosting),
    ((KDTree, BallTree), _check_neighbor_tree),
    (NeighborsBase, _check_neighbors),
    (BaseLibSVM, _check_support_vectors),
    (_BaseKMeans, _check_centers),
    (BSpline, _check_spline),
    ((scipy.sparse.spmatrix, scipy.sparse.sparray), _check_sparse),
    (TokenAnalyzer, TokenAnalyzer.check),
)
