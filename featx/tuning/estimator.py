"""FineTuned, a scikit-learn classifier and regressor that adapts the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from sklearn.utils import ClassifierTags, RegressorTags, Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from featx._events import Events
from featx._optional import import_optional
from featx._validation import check_choice, check_integer, is_missing
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.heads import find_path, make_head
from featx.images.containers import list_items
from featx.inference.transformer import BackboneTransformer
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import make_folds
from featx.tuning.pipeline import build_pipeline, make_scratch_file
from featx.tuning.race import Problem, Strategy
from featx.tuning.strategy import (
    TuningSettings,
    choose_strategy,
    find_depths,
    keep_activations,
    train_chosen,
)

__all__ = ["FineTuned"]


class FineTuned(BaseEstimator):  # type: ignore[misc]
    """Tune the last layers of a backbone on labelled images or texts, if that is better on left-out images or texts.

    `fit` compares two kinds of networks on the folds of a cross-validation: the frozen network with its default head,
    and networks that are tuned after one of several layers. It then fits the choice on all images. Near-duplicates
    stay on one side of a fold. `cross_val_score` repeats all this for each fold, so the score is honest. Needs the
    extra ``tune`` (PyTorch).

    Parameters
    ----------
    extractor : FeatureExtractor, TextExtractor or None, default=None
        The frozen network, a float32 backbone, and its features. None is the default extractor of images.
    task : {"classification", "regression"}, default="classification"
        With ``"regression"`` this is a regressor.
    depth : str, default="auto"
        Layer after which the network is tuned. ``"auto"`` tries the last layers (`featx.tuning.list_depths`).
    epochs : int or "auto", default="auto"
        Passes over the images. ``"auto"`` is 6, and 12 if that is better; for texts 2 and 4.
    alpha : float or "auto", default="auto"
        The weights are ``(1 - alpha) * frozen + alpha * trained``. ``"auto"`` chooses among
        `featx.tuning.strategy.ALPHAS`.
    views : int or None, default=None
        Views of each image to tune on: the plain one, its mirror image, and crops. None is 6. Texts have none.
    cv : int, default=5
        Number of folds of the comparison.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        Weights of the classes in the loss and in the frozen head.
    random_state : int, default=0
        Seed of the training.
    folder : str, path or None, default=None
        Folder that keeps the values of the frozen layers for later fits on the same images. None is a temporary
        folder.
    max_bytes : float, default=2e9
        Largest number of bytes of these values, all layers together. Fewer views are used if one layer would take
        more.

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
        A plain pipeline of the extractor and a linear head; nothing in it needs torch. `featx.save` stores
        its backbone in the file. If the network was tuned, its backbone is a file that lives as long as
        this process.
    strategy_ : featx.tuning.race.Strategy
        The choice, and all trials.
    classes_ : ndarray of shape (n_classes,)
        Only for a classification.

    See Also
    --------
    featx.tune : The same from a source of images, with an honest estimate.
    featx.fit : A head on the frozen network.

    Examples
    --------
    >>> import featx
    >>> from sklearn.base import is_classifier, is_regressor
    >>> is_classifier(featx.FineTuned()), is_regressor(featx.FineTuned(task="regression"))
    (True, True)
    """

    def __init__(
        self,
        extractor: BackboneTransformer | None = None,
        *,
        task: str = "classification",
        depth: str = "auto",
        epochs: int | str = "auto",
        alpha: float | str = "auto",
        views: int | None = None,
        cv: int = 5,
        class_weight: Any = None,
        random_state: int = 0,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: float = 2e9,
    ) -> None:
        self.extractor = extractor
        self.task = task
        self.depth = depth
        self.epochs = epochs
        self.alpha = alpha
        self.views = views
        self.cv = cv
        self.class_weight = class_weight
        self.random_state = random_state
        self.folder = folder
        self.max_bytes = max_bytes

    def fit(self, X: Any, y: npt.ArrayLike, *, events: Events | None = None) -> Self:
        """Choose by cross-validation, and tune or fit on all images.

        Parameters
        ----------
        X : sequence or ndarray
            Images as for `FeatureExtractor.transform`, or texts as for `TextExtractor.transform`.
        y : array-like of shape (n_samples,)
            Classes or numbers.
        events : Events or None, default=None
            Receives progress, and a note per epoch.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is wrong, or y has not one value for each image or text.
        """
        check_choice("task", self.task, ("classification", "regression"))
        check_integer("cv", self.cv, 2)
        settings = TuningSettings(
            *(self.depth, self.epochs, self.alpha, self.views, self.random_state),
            *(self.class_weight, self.folder, self.max_bytes),
        )
        events = events or Events()
        extractor = clone(self.extractor or FeatureExtractor()).fit(None)
        settings.check(extractor)
        is_image = extractor.kind == "image"
        items = list_items(X, extractor.kind)
        target = np.asarray(y) if self.task == "classification" else np.asarray(y, float)
        if target.shape != (len(items),):
            raise InputError(
                f"y: of shape {target.shape}, expected one label or number for each of {len(items)} "
                f"{'images' if is_image else 'texts'}"
            )
        self._check_target(target)
        find_depths(extractor, self.depth)  # raises before the long work, as does the next check
        import_optional("torch", "tune")
        features = extractor.transform(items)
        is_deep = extractor.layer is None and extractor.pooling == "avg"  # to other features many images look alike
        # texts that differ in one word may mean different things
        duplicates = find_duplicates(features, near=is_image and is_deep)
        groups = duplicates.groups if duplicates.n else None
        folds, _ = make_folds(self.task, target, groups, n_folds=self.cv)
        head = make_head(task=self.task, cv=folds, class_weight=self.class_weight).fit(features, target)
        path = find_path(head)
        assert path is not None
        path.cv = 5  # a later fit makes folds of its own images
        problem = Problem(items, target, self.task, extractor, folds, path.out_of_fold_, groups)
        with keep_activations(settings) as settings:
            strategy, _ = choose_strategy(problem, settings, events)
            tuned = train_chosen(problem, strategy, settings, events)[0] if strategy.chosen else None
        if strategy.chosen is None or tuned is None:
            self.pipeline_ = Pipeline([("features", extractor), ("head", head)])
        else:
            self.pipeline_ = build_pipeline(tuned, strategy.chosen.alpha, extractor, sharpness=strategy.sharpness)
        self.strategy_: Strategy = strategy
        if self.task == "classification":
            self.classes_ = self.pipeline_.classes_
        return self

    def _check_target(self, target: npt.NDArray[Any]) -> None:
        """Raise InputError for a target without a fold to leave out."""
        if self.task == "regression":
            if not np.isfinite(target).all() or len(target) < 2:
                raise InputError("y: expected at least two numbers, all of them finite; drop the other rows")
            return
        if any(map(is_missing, target.tolist())):
            raise InputError("y: a label is missing; drop its row")
        classes, counts = np.unique(target, return_counts=True)
        if len(classes) < 2:
            raise InputError(f"y: got {len(classes)} class; expected at least two")
        if counts.max() < 2:
            raise InputError(f'y: {len(classes)} classes of a single example each; for numbers, set task="regression"')

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class or the number of each image, of shape (n_samples,)."""
        check_is_fitted(self)
        return np.asarray(self.pipeline_.predict(X))

    @available_if(lambda self: self.task == "classification")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Return calibrated probabilities of shape (n_samples, n_classes), in the order of ``classes_``."""
        check_is_fitted(self)
        return np.asarray(self.pipeline_.predict_proba(X))

    def score(self, X: Any, y: npt.ArrayLike) -> float:
        """Return the accuracy, or R2."""
        measure = accuracy_score if self.task == "classification" else r2_score
        return float(measure(y, self.predict(X)))

    def __getstate__(self) -> dict[str, Any]:
        """Add the tuned backbone's content, since its file lives only as long as this process."""
        state: dict[str, Any] = super().__getstate__()
        if getattr(self, "strategy_", None) is not None and self.strategy_.chosen is not None:
            state["_backbone"] = Path(self.pipeline_[0].backbone).read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        content = state.pop("_backbone", None)
        super().__setstate__(state)
        if content is not None:
            path = Path(make_scratch_file(os.path.basename(self.pipeline_[0].backbone)))
            path.write_bytes(content)
            self.pipeline_[0].backbone = os.fspath(path)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        is_classifier = self.task == "classification"
        tags.estimator_type = "classifier" if is_classifier else "regressor"
        tags.classifier_tags = ClassifierTags() if is_classifier else None
        tags.regressor_tags = None if is_classifier else RegressorTags()
        tags.target_tags.required = True
        tags.no_validation = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
