"""List the types and functions that a saved pipeline may contain beyond those that skops trusts by itself.

Loading builds objects of these types and sets their attributes; it runs no method of theirs. A function is only
named in a file. It runs when the pipeline predicts or is fitted again, so every listed function computes with
arrays and does nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np

__all__ = ["TRUSTED", "is_function", "list_trusted"]

#: Types of fitted featx and scikit-learn objects that no rule of `list_trusted` finds.
TRUSTED = frozenset(
    {
        "builtins.frozenset",
        "builtins.range",
        "featx.extractor.FeatureExtractor",
        "featx.text.extractor.TextExtractor",
        "featx.text.words.TokenAnalyzer",
        "functools.partial",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
    }
)
#: Base classes in scikit-learn. Their subclasses in scikit-learn are trusted, however many a release adds.
_BASES = (
    *("sklearn.base.BaseEstimator", "sklearn.gaussian_process.kernels.Kernel"),
    *("sklearn._loss.link.BaseLink", "sklearn._loss.loss.BaseLoss"),
    *("sklearn.metrics._dist_metrics.DistanceMetric32", "sklearn.metrics._dist_metrics.DistanceMetric64"),
    *("sklearn.metrics._scorer._BaseScorer", "sklearn.neural_network._stochastic_optimizers.BaseOptimizer"),
    *("sklearn.model_selection._split.BaseCrossValidator", "sklearn.model_selection._split.BaseShuffleSplit"),
    *("sklearn.model_selection._split._RepeatedSplits", "sklearn.model_selection._split._CVIterableWrapper"),
    *("scipy.sparse.spmatrix", "scipy.sparse.sparray"),
)
#: Modules of experimental estimators, which scikit-learn itself imports on request only.
_EXPERIMENTAL = ("sklearn.impute._iterative", "sklearn.model_selection._search_successive_halving")
#: Modules whose public functions compute with arrays.
_MODULES = ("sklearn.feature_selection", "sklearn.metrics", "sklearn.metrics.pairwise", "sklearn.preprocessing")
#: Private functions that fitted estimators of scikit-learn keep.
_PRIVATE_FUNCTIONS = frozenset(
    {
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
    }
)
#: Functions of NumPy that compute with arrays; skops trusts its ufuncs. Many others read and write files.
_NUMPY_FUNCTIONS = (
    *("all", "amax", "amin", "angle", "any", "argmax", "argmin", "argsort", "around", "array", "asarray"),
    *("ascontiguousarray", "atleast_1d", "atleast_2d", "average", "clip", "column_stack", "concatenate", "copy"),
    *("count_nonzero", "cumprod", "cumsum", "diff", "dot", "dstack", "expand_dims", "fix", "flip", "fliplr", "flipud"),
    *("gradient", "hstack", "hypot", "i0", "imag", "max", "mean", "median", "min", "nan_to_num"),
    *("nanargmax", "nanargmin", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile"),
    *("nanprod", "nanquantile", "nanstd", "nansum", "nanvar", "percentile", "prod", "ptp", "quantile", "ravel"),
    *("real", "real_if_close", "reshape", "roll", "rot90", "round", "sinc", "sort", "split", "squeeze", "stack"),
    *("std", "sum", "swapaxes", "tile", "transpose", "trapezoid", "trim_zeros", "unwrap", "var", "vstack", "where"),
)


@cache
def list_trusted() -> frozenset[str]:
    """List all trusted types and functions by their full names, among them every estimator of scikit-learn.

    Names are listed one by one. A rule by module would also trust everything that the module imports.

    Examples
    --------
    >>> from featx.persistence.trust import list_trusted
    >>> "sklearn.model_selection._split.GroupKFold" in list_trusted(), "os.system" in list_trusted()
    (True, False)
    """
    from sklearn.utils import all_estimators

    all_estimators()  # imports every module that holds an estimator
    for name in (*_EXPERIMENTAL, "featx.heads", "featx.out_of_core"):
        importlib.import_module(name)
    return TRUSTED | _list_functions() | frozenset(_list_classes())


def is_function(name: str) -> bool:
    """Return True for the name of a trusted function. A file may name it, but must not call it."""
    return name in _list_functions()


def _list_classes() -> Iterator[str]:
    for path in _BASES:
        module, _, name = path.rpartition(".")
        waiting, seen = [getattr(importlib.import_module(module), name)], set()
        while waiting:
            kind = waiting.pop()
            package, *parts = kind.__module__.split(".")
            # PyFuncDistance calls a function of the file
            is_test = "tests" in parts or any(part.startswith(("_test", "_mock")) for part in parts)
            if package in ("featx", "scipy", "sklearn") and not is_test and "PyFunc" not in kind.__name__:
                yield f"{kind.__module__}.{kind.__name__}"
            waiting += [each for each in kind.__subclasses__() if each not in seen]
            seen.update(waiting)


@cache
def _list_functions() -> frozenset[str]:
    from sklearn.metrics import get_scorer, get_scorer_names

    names = set(_PRIVATE_FUNCTIONS)
    for score in (get_scorer(name)._score_func for name in get_scorer_names()):  # some of these functions are private
        names.add(f"{score.__module__}.{score.__name__}")
    for path in _MODULES:
        module = importlib.import_module(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated names
            public = [getattr(module, name, None) for name in getattr(module, "__all__", [])]
        own = [value for name, value in vars(module).items() if not name.startswith("_")]
        functions = filter(inspect.isfunction, [*public, *(each for each in own if _module_of(each) == path)])
        names.update(f"{function.__module__}.{function.__name__}" for function in functions)
    names.update(f"numpy.{name}" for name in _NUMPY_FUNCTIONS if hasattr(np, name))
    return frozenset(names)


def _module_of(value: object) -> str | None:
    return getattr(value, "__module__", None)
