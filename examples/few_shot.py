"""Classify with five or ten images per class, and calibrate the probabilities.

python examples/few_shot.py [FOLDER]    (one sub-folder per class; default: pieces of clothing)

With so few images, a penalty that is strong enough for good answers leaves their probabilities far
too low. One number, the temperature, corrects this. Cross-validation on the same few images finds
it, and it changes no answer. If there are two classes and the few images are separated perfectly,
nothing bounds the temperature (the log loss shows it), so a sigmoid is fitted instead, which smooths
its targets. The expected calibration error is the mean distance between the probability and the
accuracy. Features are scaled to unit length instead of by `StandardScaler`: ten images do not
show the spread of a channel, and a channel that is nearly constant among them would dominate.
"""

import sys

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_files
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline

import featx

N_DRAWS = 5


def draw(y, n_shots, rng):
    """Draw n_shots images of each class; the other images are for the test."""
    chosen = [rng.choice(np.flatnonzero(y == label), n_shots, replace=False) for label in np.unique(y)]
    return np.isin(np.arange(len(y)), np.concatenate(chosen))


def calibration_error(y, probabilities, classes, n_bins=10):
    """Compare confidence and accuracy among answers of similar confidence."""
    confidence, right = probabilities.max(axis=1), classes[probabilities.argmax(axis=1)] == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in np.unique(bins)]
    return sum(gaps) / len(y)


def main():
    """Fit heads on several draws of a few images, and test them on all the others."""
    if sys.argv[1:]:
        files = load_files(sys.argv[1], load_content=False)
        X, y = files.filenames, files.target
    else:
        X, y = featx.samples.load_fashion_mnist()
    features = featx.FeatureExtractor(l2_normalize=True).transform(X).astype(float)  # once: the draws select rows
    # PCA keeps the whole space that the few images span, so an L2 penalty gives the same answers with fewer columns.
    plain = make_pipeline(PCA(), LogisticRegression(C=10))
    method = "temperature" if len(np.unique(y)) > 2 else "sigmoid"
    heads = {"plain": plain, "calibrated": CalibratedClassifierCV(plain, method=method, cv=5, ensemble=False)}
    print("shots  head        accuracy       calibration error  log loss")
    for n_shots in (5, 10):
        for name, head in heads.items():
            rng = np.random.default_rng(0)  # the same draws for both
            results = []
            for _ in range(N_DRAWS):
                few = draw(y, n_shots, rng)
                probabilities = head.fit(features[few], y[few]).predict_proba(features[~few])
                accuracy = accuracy_score(y[~few], head.predict(features[~few]))
                error = calibration_error(y[~few], probabilities, head.classes_)
                results.append((accuracy, error, log_loss(y[~few], probabilities, labels=head.classes_)))
            (accuracy, error, loss), (spread, spread_of_error, _) = np.mean(results, axis=0), np.std(results, axis=0)
            calibration = f"{error:.3f} +- {spread_of_error:.3f}"
            print(f"{n_shots:5}  {name:10}  {accuracy:.3f} +- {spread:.3f}  {calibration:17}  {loss:.3f}")


if __name__ == "__main__":
    main()
