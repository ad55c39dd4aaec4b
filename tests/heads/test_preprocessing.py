import numpy as np
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.heads import SignedSquareRoot


@parametrize_with_checks([SignedSquareRoot()])
def test_it_is_a_transformer_of_scikit_learn(estimator, check):
    check(estimator)


def test_roots_keep_the_sign_and_the_dtype():
    X = np.array([[4.0, -9.0, 0.0]], np.float32)
    roots = SignedSquareRoot().fit_transform(X)
    np.testing.assert_array_equal(roots, [[2, -3, 0]])
    assert roots.dtype == np.float32
    assert X[0, 0] == 4
