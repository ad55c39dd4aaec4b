"""scikit-learn's own checks of an estimator, every one that there is for a transformer.

They make tables of random numbers, so scikit-learn hands none of them to an estimator whose tags say
that it takes no table. `OfTables` says that it takes one, to get them all; `OfRows` draws an image
of each row, so that what a check is about is looked at even where a table of numbers is refused.
"""

import os
import pickle
import subprocess
import sys
import traceback
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks, get_tags

import featx
from featx.extractor import FeatureExtractor


class OfTables(FeatureExtractor):
    """`FeatureExtractor`, whose tags keep no check away."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = False
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class OfRows(OfTables):
    """Embeds an image of each row: the bytes of its numbers as shades of grey."""

    def transform(self, X):
        rows = np.asarray(X, "<f4")
        return self.embed([np.frombuffer(row.tobytes(), np.uint8).reshape(1, -1) for row in rows]).features


class Excuse(NamedTuple):
    """Why a check cannot apply to images, and what of it fails; None where it passes once rows are drawn."""

    reason: str
    fails_at: str | None = None


REFUSED = r"expected (\(n_samples, height, width, 3\)|one image per sample|a sequence of|the one that holds)"

#: Every check that cannot apply to images, or to `FeatureExtractor` for what images are.
EXCUSED = {
    "check_fit_score_takes_y": Excuse("calls fit_transform with numbers"),
    "check_estimators_dtypes": Excuse("transforms float32, float64 and integers, which are no images"),
    "check_dtype_object": Excuse("transforms a table of numbers in an array of objects"),
    "check_pipeline_consistency": Excuse("calls fit_transform with numbers, in a pipeline"),
    "check_estimators_pickle": Excuse("transforms numbers before and after pickling"),
    "check_f_contiguous_array_estimator": Excuse("transforms numbers in Fortran's order"),
    "check_transformer_data_not_an_array": Excuse("transforms a table that is no array"),
    "check_transformer_general": Excuse("compares transform with fit_transform, of numbers"),
    "check_transformer_preserve_dtypes": Excuse("transforms numbers of each type that stays what it was"),
    "check_transformers_unfitted_stateless": Excuse("transforms numbers without fit"),
    "check_methods_sample_order_invariance": Excuse("transforms numbers in another order"),
    "check_methods_subset_invariance": Excuse("transforms numbers a row at a time"),
    "check_dict_unchanged": Excuse("transforms numbers, and looks for attributes that changed"),
    "check_fit_idempotent": Excuse("transforms numbers after each of two fits"),
    "check_inplace_ensure_writeable": Excuse("transforms numbers that cannot be written to"),
    "check_array_api_input": Excuse("transforms numbers under the array API, when SciPy was told of it"),
    "check_set_output_transform": Excuse("transforms numbers, with set_output"),
    "check_set_output_transform_pandas": Excuse("transforms a DataFrame of numbers, with set_output"),
    "check_set_output_transform_polars": Excuse("transforms a polars DataFrame of numbers, with set_output"),
    "check_global_output_transform_pandas": Excuse("transforms a DataFrame of numbers, with a configured output"),
    "check_global_set_output_transform_polars": Excuse("transforms a polars one, with a configured output"),
    "check_complex_data": Excuse("fit looks at no image, and so at no complex number", "Complex data not supported"),
    "check_estimators_empty_data_messages": Excuse(
        "fit looks at no image, and no images give no features", "does not raise a ValueError when an empty data"
    ),
    "check_estimators_nan_inf": Excuse("fit looks at no image, and so at no NaN", "NaN and inf in fit"),
    "check_estimator_sparse_tag": Excuse("fit looks at no image, and so at no sparse matrix", "fitted on sparse data"),
    "check_fit1d": Excuse("one dimension is what a list of images has", "with raises(ValueError):"),
    "check_fit2d_predict1d": Excuse("images need not be reshaped to two dimensions", "Reshape your data"),
    "check_n_features_in": Excuse("an image is no row, whose columns one could count", "n_features_in_"),
    "check_n_features_in_after_fitting": Excuse(
        "nor can another count be refused", "does not set the `n_features_in_`"
    ),
    "check_dataframe_column_names_consistency": Excuse(
        "a column of images may have another name tomorrow", "does not have a feature_names_in_ attribute"
    ),
    "check_transformer_get_feature_names_out": Excuse(
        "features are named by backbone and layer, whatever goes in", "input_features should have length equal"
    ),
    "check_transformer_get_feature_names_out_pandas": Excuse(
        "features are named by backbone and layer, not by the column",
        "input_features is not equal to feature_names_in_",
    ),
    "check_get_feature_names_out_error": Excuse(
        "the parameters alone say what features there are, before fit as well", "should have raised a NotFitted error"
    ),
    "check_param_validation": Excuse(
        "parameters are checked by featx, whose errors say what to do", "no attribute '_parameter_constraints'"
    ),
}

#: Checks of a transformer that the generator leaves to scikit-learn's own tests.
UNLISTED = [
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_dataframe_column_names_consistency",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_param_validation",
]


def name_of(check):
    return name_of(check.func) if isinstance(check, partial) else check.__name__


def all_checks():
    listed = [check for _, check in estimator_checks.estimator_checks_generator(OfTables(), mark=None)]
    return listed + [partial(getattr(estimator_checks, name), "FeatureExtractor") for name in UNLISTED]


def identify(check):
    details = "-".join(f"{key}={value}" for key, value in check.keywords.items())
    return f"{name_of(check)}{details and '-'}{details}"


CHECKS = all_checks()
NAMES = {name_of(check) for check in CHECKS}
if not os.environ.get("SCIPY_ARRAY_API"):  # which SciPy reads when it is imported: a test below sets it, for a process
    CHECKS = [check for check in CHECKS if name_of(check) != "check_array_api_input"]
every_check = pytest.mark.parametrize("check", CHECKS, ids=identify)


def test_every_excuse_is_of_a_check_that_is_run_and_has_a_reason_of_its_own():
    assert set(EXCUSED) - NAMES <= {"check_array_api_input"}  # which scikit-learn 1.8 does not have
    assert len({excuse.reason for excuse in EXCUSED.values()}) == len(EXCUSED)


@every_check
def test_a_check_passes_or_is_given_no_image(check):
    if name_of(check) not in EXCUSED:
        check(OfTables())
    elif EXCUSED[name_of(check)].fails_at is None:
        with pytest.raises(featx.InputError, match=REFUSED):
            check(OfTables())


@every_check
def test_a_check_passes_once_rows_are_drawn_or_fails_for_the_reason_given(check):
    excuse = EXCUSED.get(name_of(check))
    if excuse is None or excuse.fails_at is None:
        check(OfRows(layer="stem"))
        return
    with pytest.raises((AssertionError, AttributeError, ValueError)) as caught:
        check(OfRows(layer="stem"))
    lines = [frame.line for frame in traceback.extract_tb(caught.tb) if frame.filename == estimator_checks.__file__]
    assert excuse.fails_at in f"{caught.value} {lines[-1]}"


@pytest.mark.heavy
@pytest.mark.skipif("check_array_api_input" not in NAMES, reason="scikit-learn 1.9 brought this check")
def test_the_check_of_the_array_api_in_a_process_that_has_it():
    tests = "test_a_check_passes_or_is_given_no_image", "test_a_check_passes_once_rows_are_drawn"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += ["-k", f"check_array_api_input and ({' or '.join(tests)})"]
    done = subprocess.run(
        command, env={**os.environ, "SCIPY_ARRAY_API": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_under_its_own_tags_scikit_learn_has_one_check_and_says_why():
    with pytest.warns(SkipTestWarning, match="Can't test estimator FeatureExtractor which requires input"):
        results = estimator_checks.check_estimator(FeatureExtractor())
    assert [(result["check_name"], result["status"]) for result in results] == [("check_estimator_cloneable", "passed")]


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_mixin_order",
        "check_estimators_overwrite_params",
        "check_estimators_fit_returns_self",
        "check_readonly_memmap_input",
        "check_positive_only_tag_during_fit",
        "check_fit_check_is_fitted",
    ],
)
def test_the_checks_of_the_interface_on_the_extractor_itself(check):
    assert check in NAMES
    getattr(estimator_checks, check)("FeatureExtractor", FeatureExtractor())


def test_the_tags_say_what_is_so():
    X = featx.samples.load_fashion_mnist("test")[0][:2]
    extractor = FeatureExtractor(layer="stem")
    tags = get_tags(extractor)
    rows = extractor.transform(X)
    assert not tags.requires_fit
    assert not tags.target_tags.required
    assert tags.no_validation  # fit looks at nothing
    assert extractor.fit(object()) is extractor
    taken = [name for name in tags.input_tags.__slots__ if getattr(tags.input_tags, name)]
    assert taken == ["one_d_array", "string"]
    np.testing.assert_array_equal(extractor.transform(np.array(X, dtype=object)), rows)
    with pytest.raises(featx.InputError):
        extractor.transform(np.zeros((2, 3)))
    with pytest.raises(featx.InputError):
        extractor.transform(np.zeros((2, 8, 8)))
    assert tags.transformer_tags.preserves_dtype == []
    assert rows.dtype == np.float32
    assert not tags.non_deterministic
    np.testing.assert_array_equal(clone(extractor).transform(X), rows)


def test_missing_images_are_allowed_as_the_tag_says():
    X = [featx.samples.load_fashion_mnist("test")[0][0], np.nan]
    for on_error, allowed in (("nan", True), ("raise", False)):
        extractor = FeatureExtractor(layer="stem", on_error=on_error)
        assert get_tags(extractor).input_tags.allow_nan is allowed
        with pytest.warns(featx.FailedImagesWarning) if allowed else pytest.raises(featx.ImageError):
            extractor.transform(X)


@pytest.mark.parametrize(
    "X",
    [np.zeros((3, 2), complex), np.full((3, 2), np.nan), sparse.csr_array((3, 2)), sparse.csr_matrix((3, 2))],
    ids=["complex", "nan", "sparse array", "sparse matrix"],
)
def test_what_fit_does_not_look_at_transform_refuses(X):
    with pytest.raises(featx.FeatxError, match=r"expected|is not an image"):
        FeatureExtractor().fit(X).transform(X)


@pytest.mark.parametrize("when", ["fitted", "not fitted"])
def test_pickles_keep_parameters_and_what_fit_learned(when):
    extractor = FeatureExtractor(layer=["stem", "stage1"], pooling="max", batch_size=3)
    if when == "fitted":
        extractor.fit(None)
    again = pickle.loads(pickle.dumps(extractor))
    assert vars(again) == vars(extractor)
    assert again.get_params() == extractor.get_params()
