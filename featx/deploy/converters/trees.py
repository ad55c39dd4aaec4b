"""Convert decision trees, forests and histogram gradient boosting, each to one operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import helper
from sklearn import ensemble
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.converters.linear import decide

__all__ = ["TABLES"]

_Array = npt.NDArray[Any]


class _Tree(NamedTuple):
    """Arrays over the nodes of one tree; ``values``, (n_nodes, n), are added to the targets from ``first`` on."""

    left: _Array
    right: _Array
    feature: _Array
    threshold: _Array
    is_leaf: _Array
    values: _Array
    first: int = 0


def _sum_leaves(converter: Converter, x: Rows, trees: Iterable[_Tree], n_targets: int) -> str:
    """Sum the leaf values of each row over the trees; the result is float64 (N, n_targets)."""
    columns: dict[str, list[_Array]] = {
        name: []
        for name in (
            *("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"),
            *("target_treeids", "target_nodeids", "target_ids"),
        )
    }
    leaves, thresholds, weights = [], [], []
    for number, tree in enumerate(trees):
        nodes = np.arange(len(tree.left))
        places = np.flatnonzero(tree.is_leaf)
        n = tree.values.shape[1]
        inner = ~tree.is_leaf
        for name, values in (
            ("nodes_treeids", np.full(len(nodes), number)),
            ("nodes_nodeids", nodes),
            ("nodes_featureids", np.where(inner, tree.feature, 0)),
            ("nodes_truenodeids", np.where(inner, tree.left, 0)),
            ("nodes_falsenodeids", np.where(inner, tree.right, 0)),
            ("target_treeids", np.full(len(places) * n, number)),
            ("target_nodeids", np.repeat(places, n)),
            ("target_ids", np.tile(np.arange(tree.first, tree.first + n), len(places))),
        ):
            columns[name].append(values)
        leaves.append(tree.is_leaf)
        thresholds.append(np.where(inner, tree.threshold, 0.0))
        weights.append(tree.values[places].ravel())
    name = converter.graph.op(
        "TreeEnsembleRegressor",
        converter.graph.double(x.name),
        domain="ai.onnx.ml",
        n_targets=n_targets,
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in np.concatenate(leaves)],
        nodes_values_as_tensor=_doubles("thresholds", thresholds),
        target_weights_as_tensor=_doubles("weights", weights),
        **{name: np.concatenate(parts).astype(int).tolist() for name, parts in columns.items()},
    )
    return converter.graph.cast(name, np.float64)


def _doubles(name: str, parts: list[_Array]) -> Any:
    values = np.concatenate(parts).astype(np.float64)
    return helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values.tolist())


def _read_tree(tree: Any, classes: bool) -> _Tree:
    values = tree.value[:, 0, :] if classes else tree.value[:, :, 0]
    return _Tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.children_left < 0, values)


def _forest(converter: Converter, head: Estimator, x: Rows, classes: bool) -> str:
    trees = [tree.tree_ for tree in getattr(head, "estimators_", [head])]
    # scikit-learn's trees compare float32
    rows = Rows(converter.graph.cast(x.name, np.float32), x.sample.astype(np.float32))
    n_targets = len(head.classes_) if classes else head.n_outputs_
    total = _sum_leaves(converter, rows, (_read_tree(tree, classes) for tree in trees), n_targets)
    return converter.graph.op("Div", total, np.array(float(len(trees))))


def _forest_classifier(converter: Converter, head: Estimator, x: Rows) -> Answer:
    probabilities = _forest(converter, head, x, True)
    return Answer(converter.graph.argmax(probabilities), probabilities)


def _forest_regressor(converter: Converter, head: Estimator, x: Rows) -> str:
    value = _forest(converter, head, x, False)
    return converter.graph.flat(value) if head.n_outputs_ == 1 else value


def _boosted(converter: Converter, head: Estimator, x: Rows) -> str:
    """Sum the trees of histogram gradient boosting; the result is (N, n_trees_per_iteration)."""
    trees = []
    for iteration in head._predictors:
        for k, predictor in enumerate(iteration):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise converter.refuse(head, "it has categorical features")
            left, right, feature, threshold, is_leaf, value = (
                nodes[name] for name in ("left", "right", "feature_idx", "num_threshold", "is_leaf", "value")
            )
            trees.append(_Tree(left, right, feature, threshold, is_leaf.astype(bool), value[:, None], k))
    start = np.asarray(head._baseline_prediction, np.float64).reshape(1, -1)
    if not trees:
        columns = converter.graph.take(converter.graph.double(x.name), [0] * start.size)
        return converter.graph.op("Add", converter.graph.op("Mul", columns, np.array(0.0)), start)
    return converter.graph.op("Add", _sum_leaves(converter, x, trees, head.n_trees_per_iteration_), start)


def _boosted_classifier(converter: Converter, head: Estimator, x: Rows) -> Answer:
    return decide(converter.graph, _boosted(converter, head, x), len(head.classes_), probabilities=True)


def _boosted_regressor(converter: Converter, head: Estimator, x: Rows) -> str:
    value = converter.graph.flat(_boosted(converter, head, x))
    return converter.graph.op("Exp", value) if head.loss in ("poisson", "gamma") else value


TABLES = Tables(
    classifiers={
        **dict.fromkeys(
            (
                *(DecisionTreeClassifier, ExtraTreeClassifier),
                *(ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier),
            ),
            _forest_classifier,
        ),
        ensemble.HistGradientBoostingClassifier: _boosted_classifier,
    },
    regressors={
        **dict.fromkeys(
            (
                *(DecisionTreeRegressor, ExtraTreeRegressor),
                *(ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor),
            ),
            _forest_regressor,
        ),
        ensemble.HistGradientBoostingRegressor: _boosted_regressor,
    },
)
