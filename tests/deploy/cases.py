"""The heads, transformers and meta-estimators of the support table and its test."""

from __future__ import annotations

import numpy as np
from sklearn import ensemble, linear_model, naive_bayes, svm
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, FastICA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.feature_selection import (
    SelectFromModel,
    SelectKBest,
    SelectPercentile,
    VarianceThreshold,
    f_classif,
    f_regression,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from featx.heads import HEADS, SignedSquareRoot, make_head

CLASSES, NUMBERS = ("2 classes", "3 classes"), ("numbers",)


def quick(head):
    """Reduce the trees and iterations of a head, to save time."""
    few = {"n_estimators": 20, "max_iter": 5, "hidden_layer_sizes": (32,)}
    slow = ("RandomForest", "HistGradientBoosting", "MLP")
    names = [
        name
        for name, value in head.get_params().items()
        if hasattr(value, "fit") and type(value).__name__.startswith(slow)
    ]
    for prefix in [f"{name}__" for name in names] or ([""] if type(head).__name__.startswith(slow) else []):
        known = head.get_params()
        head.set_params(**{prefix + key: value for key, value in few.items() if prefix + key in known})
    return head


def heads():
    """Yield the name, the targets and a factory of every head of `featx.heads`."""
    for name, head in HEADS.items():
        if head.classifier:
            yield name, CLASSES, lambda name=name: quick(make_head(name, cv=3))
        if head.regressor:
            yield name, NUMBERS, lambda name=name: quick(make_head(name, task="regression"))
            yield (
                f"{name}, log target",
                NUMBERS,
                lambda name=name: quick(make_head(name, task="regression", log_target=True)),
            )


IN_FRONT = {
    "StandardScaler": StandardScaler,
    "MinMaxScaler": MinMaxScaler,
    "MinMaxScaler(clip=True)": lambda: MinMaxScaler(clip=True),
    "MaxAbsScaler": MaxAbsScaler,
    "RobustScaler": RobustScaler,
    "Normalizer": Normalizer,
    "SignedSquareRoot": SignedSquareRoot,
    "Normalizer('l1')": lambda: Normalizer("l1"),
    "Normalizer('max')": lambda: Normalizer("max"),
    "PCA": lambda: PCA(8),
    "PCA(whiten=True)": lambda: PCA(8, whiten=True),
    "TruncatedSVD": lambda: TruncatedSVD(8, random_state=0),
    "FastICA": lambda: FastICA(4, random_state=0, max_iter=2000, tol=0.01),
    "QuantileTransformer": lambda: QuantileTransformer(n_quantiles=40),
    "QuantileTransformer('normal')": lambda: QuantileTransformer(n_quantiles=40, output_distribution="normal"),
    "PowerTransformer": PowerTransformer,
    "SelectKBest": lambda: SelectKBest(by_target, k=5),
    "SelectKBest of one": lambda: SelectKBest(first_alone, k=1),
    "SelectPercentile": lambda: SelectPercentile(by_target, percentile=50),
    "SelectFromModel": lambda: SelectFromModel(ByTarget()),
    "VarianceThreshold": lambda: VarianceThreshold(0.01),
    "PolynomialFeatures": lambda: make_pipeline(SelectKBest(by_target, k=4), PolynomialFeatures(2)),
    "KBinsDiscretizer": lambda: KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "FunctionTransformer(np.log1p)": lambda: FunctionTransformer(np.log1p),
    "FunctionTransformer(user's own)": lambda: FunctionTransformer(halve),
    "FeatureUnion": lambda: FeatureUnion([("pca", PCA(3)), ("best", SelectKBest(by_target, k=2))]),
    "a Pipeline of them": lambda: make_pipeline(StandardScaler(), PCA(8), Normalizer()),
}


def by_target(X, y):
    return f_regression(X, y) if y.dtype.kind == "f" else f_classif(X, y)


class ByTarget(BaseEstimator):
    def fit(self, X, y):
        self.feature_importances_ = by_target(X, y)[0]
        return self


def first_alone(X, y):
    return np.eye(1, X.shape[1])[0]


def halve(X):
    return X / 2


def logistic():
    return make_pipeline(StandardScaler(), linear_model.LogisticRegression())


def forest():
    return ensemble.RandomForestClassifier(10, random_state=0)


def named(*estimators):
    return [(f"part_{i}", one) for i, one in enumerate(estimators)]


AROUND = {
    "GridSearchCV": (CLASSES, lambda: GridSearchCV(logistic(), {"logisticregression__C": [0.1, 1]}, cv=2)),
    "CalibratedClassifierCV, sigmoid": (CLASSES, lambda: CalibratedClassifierCV(svm.LinearSVC(), cv=2)),
    "CalibratedClassifierCV, isotonic": (
        CLASSES,
        lambda: CalibratedClassifierCV(forest(), method="isotonic", cv=2),
    ),
    "CalibratedClassifierCV, temperature": (
        CLASSES,
        lambda: CalibratedClassifierCV(svm.SVC(), method="temperature", cv=2),
    ),
    "CalibratedClassifierCV, temperature, over a forest": (
        CLASSES,
        lambda: CalibratedClassifierCV(forest(), method="temperature", cv=2, ensemble=False),
    ),
    "VotingClassifier, soft": (
        CLASSES,
        lambda: ensemble.VotingClassifier(named(logistic(), forest()), voting="soft", weights=[2, 1]),
    ),
    "VotingClassifier, hard": (
        CLASSES,
        lambda: ensemble.VotingClassifier(named(logistic(), forest(), svm.SVC()), voting="hard"),
    ),
    "StackingClassifier": (
        CLASSES,
        lambda: ensemble.StackingClassifier(named(logistic(), svm.SVC()), logistic(), cv=2, passthrough=True),
    ),
    "BaggingClassifier": (CLASSES, lambda: ensemble.BaggingClassifier(logistic(), 3, max_features=0.5, random_state=0)),
    "OneVsRestClassifier": (CLASSES, lambda: OneVsRestClassifier(logistic())),
    "OneVsOneClassifier": (CLASSES, lambda: OneVsOneClassifier(logistic())),
    "TunedThresholdClassifierCV": (CLASSES[:1], lambda: TunedThresholdClassifierCV(logistic(), cv=2)),
    "FixedThresholdClassifier": (CLASSES[:1], lambda: FixedThresholdClassifier(logistic(), threshold=0.8)),
    "MultiOutputClassifier": (("2 outputs",), lambda: MultiOutputClassifier(logistic())),
    "MultiOutputRegressor": (("2 numbers",), lambda: MultiOutputRegressor(linear_model.Ridge())),
    "VotingRegressor": (
        NUMBERS,
        lambda: ensemble.VotingRegressor(named(linear_model.Ridge(), DecisionTreeRegressor(max_depth=3))),
    ),
    "StackingRegressor": (NUMBERS, lambda: ensemble.StackingRegressor(named(linear_model.Ridge(), svm.SVR()), cv=2)),
    "BaggingRegressor": (NUMBERS, lambda: ensemble.BaggingRegressor(linear_model.Ridge(), 3, random_state=0)),
    "TransformedTargetRegressor(np.log1p)": (
        NUMBERS,
        lambda: TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1),
    ),
    "TransformedTargetRegressor(QuantileTransformer)": (
        NUMBERS,
        lambda: TransformedTargetRegressor(linear_model.Ridge(), transformer=QuantileTransformer(n_quantiles=20)),
    ),
}

OTHERS = {
    "LogisticRegression": (CLASSES, linear_model.LogisticRegression),
    "SGDClassifier, log loss": (CLASSES, lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0)),
    "SGDClassifier, Huber": (CLASSES, lambda: linear_model.SGDClassifier(loss="modified_huber", random_state=0)),
    "RidgeClassifier": (CLASSES, linear_model.RidgeClassifier),
    "LinearSVC": (CLASSES, svm.LinearSVC),
    "SVC": (CLASSES, svm.SVC),
    "SVC, polynomial": (CLASSES, lambda: svm.SVC(kernel="poly")),
    "NuSVC": (CLASSES, lambda: svm.NuSVC(nu=0.1)),
    "LinearDiscriminantAnalysis": (CLASSES, LinearDiscriminantAnalysis),
    "QuadraticDiscriminantAnalysis": (CLASSES, lambda: QuadraticDiscriminantAnalysis(reg_param=0.1)),
    "GaussianNB": (CLASSES, naive_bayes.GaussianNB),
    "KNeighborsClassifier": (CLASSES, lambda: KNeighborsClassifier(3)),
    "KNeighborsClassifier, cosine": (CLASSES, lambda: KNeighborsClassifier(metric="cosine", weights="distance")),
    "DecisionTreeClassifier": (CLASSES, lambda: DecisionTreeClassifier(random_state=0)),
    "ExtraTreesClassifier": (CLASSES, lambda: ensemble.ExtraTreesClassifier(10, random_state=0)),
    "GradientBoostingClassifier": (CLASSES, lambda: ensemble.GradientBoostingClassifier(n_estimators=10)),
    "AdaBoostClassifier": (CLASSES, lambda: ensemble.AdaBoostClassifier(n_estimators=5, random_state=0)),
    "GaussianProcessClassifier": (CLASSES, GaussianProcessClassifier),
    "LinearRegression": (NUMBERS, linear_model.LinearRegression),
    "Lasso": (NUMBERS, linear_model.Lasso),
    "ElasticNet": (NUMBERS, linear_model.ElasticNet),
    "HuberRegressor": (NUMBERS, lambda: make_pipeline(StandardScaler(), linear_model.HuberRegressor(max_iter=1000))),
    "PoissonRegressor": (
        NUMBERS,
        lambda: make_pipeline(StandardScaler(), linear_model.PoissonRegressor(max_iter=1000)),
    ),
    "SVR": (NUMBERS, svm.SVR),
    "GradientBoostingRegressor": (NUMBERS, lambda: ensemble.GradientBoostingRegressor(n_estimators=10)),
    "PLSRegression": (NUMBERS, lambda: PLSRegression(2)),
    "KernelRidge": (NUMBERS, KernelRidge),
}
