"""Hold the parts that extractors of images and of texts share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from featx._optional import import_optional
from featx._results import format_html, to_plain
from featx.cache import FeatureCache, cache_folder
from featx.errors import Failure, FeaturesChangedError, FeatxError
from featx.inference.spec import FeatureSpec, make_spec
from featx.inference.views import open_session
from featx.session import Session

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BackboneTransformer", "Embedded"]


class Embedded(NamedTuple):
    """Features and failures of one call; unpacks as ``features, failures``.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features)
        NaN in the rows of images or texts that could not be read.
    failures : list of Failure
        Position, source and reason of each failure.
    """

    features: npt.NDArray[np.float32]
    failures: list[Failure]

    @property
    def kept(self) -> list[int]:
        """Positions of the images or texts that could be read."""
        failed = {failure.index for failure in self.failures}
        return [i for i in range(len(self.features)) if i not in failed]

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Convert to a pandas DataFrame with one row per image or text and the column ``error``.

        Parameters
        ----------
        names : sequence of str or None, default=None
            Names of the features, as `FeatureExtractor.get_feature_names_out` returns them; None
            numbers them.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed (extra ``pandas``).
        """
        frame = import_optional("pandas", "pandas").DataFrame(self.features, columns=names)
        reasons = {failure.index: failure.reason for failure in self.failures}
        frame.insert(0, "error", [reasons.get(i) for i in range(len(frame))])
        return frame

    def __repr__(self) -> str:
        n, width = self.features.shape
        return f"Embedded({n} rows, {width} features, {len(self.failures)} failed)"

    def _repr_html_(self) -> str:
        failures = to_plain(self.failures[:20])
        hidden = len(self.failures) - len(failures)
        return format_html(repr(self), failures, [f"and {hidden} more failures"] if hidden else [])


class BackboneTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Record the identity of features at `fit`, and refuse changed features; a subclass embeds.

    A subclass has at least the parameters ``backbone``, ``layer``, ``pooling``, ``l2_normalize``, ``precision``,
    ``device``, ``providers``, ``cache`` and ``on_error``.
    """

    #: Kind of the inputs: ``"image"`` or ``"text"``.
    kind = "image"

    backbone: Any
    device: str
    providers: Any
    cache: bool | str | os.PathLike[str]
    on_error: str

    def fit(self, X: Any, y: Any = None) -> Self:
        """Record the identity of the features; X and y are ignored."""
        for name in ("backbone_identity_", "value_parameters_"):
            if hasattr(self, name):
                delattr(self, name)
        spec = self._spec()
        self.backbone_identity_ = spec.identity
        self.value_parameters_: dict[str, Any] = dict(spec.values)
        return self

    @property
    def n_features(self) -> int:
        """Number of features: the width of a row.

        Raises
        ------
        AttributeError
            If a parameter is wrong, or the backbone is not on this machine yet.
        """
        try:
            return self._spec(download=False).n_features
        except FeatxError as error:  # scikit-learn's display reads each attribute, and catches only this error
            raise AttributeError(str(error)) from error

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the features: ``efficientnet_lite0_head_0`` and so on.

        Raises
        ------
        BackboneError
            If the backbone is on the hub or at an https address and was not fetched yet. scikit-learn asks
            for the names whenever it displays an estimator, which must not download anything.
        """
        return np.array(self._spec(download=False).names(), dtype=object)

    def open_session(self) -> Session:
        """Return the session of the (first) backbone, opened on first use; its ``device`` is what "auto" chose."""
        spec = self._spec()
        return open_session(spec, spec.parts[0], self.device, self.providers)

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        paths = {name: os.fspath(value) for name, value in state.items() if isinstance(value, os.PathLike)}
        if isinstance(self.backbone, (list, tuple)):
            paths["backbone"] = [os.fspath(path) for path in self.backbone]
        return {**state, **paths}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__({**type(self)().__dict__, **state})  # defaults of parameters that newer versions added

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "nan"
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _open_cache(self) -> FeatureCache | None:
        if self.cache is False:
            return None
        return FeatureCache(cache_folder() if self.cache is True else os.fspath(self.cache))

    def _spec(self, *, download: bool = True) -> FeatureSpec:
        """Validate all parameters, and compare them with the parameters at fit."""
        spec = make_spec(self.get_params(deep=False), kind=self.kind, download=download)
        if hasattr(self, "backbone_identity_"):
            changed = spec.changes(self.backbone_identity_, self.value_parameters_)
            if changed:
                raise FeaturesChangedError(f"{'; '.join(changed)}: the features would differ; call fit again")
        return spec
