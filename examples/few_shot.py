"""Ten images a class or five: how often the answer is right, and how far to trust its probability.

python examples/few_shot.py [FOLDER]    (a sub-folder a class; default: pieces of clothing)

With so few images a penalty strong enough for good answers leaves the head far too unsure of them.
One number, the temperature, mends that: it is found by cross-validation on the same few images and
changes no answer. Of two classes all few may be told apart, and then nothing bounds it (the log loss
shows it): there a sigmoid is fitted, which smooths its targets. The expected calibration error is
the mean distance between how sure the head is and how often it is right. Features are scaled to unit
length, not by `StandardScaler`: ten images do not tell a channel's spread, and one that was nearly
silent among them would drown the rest.
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
    """Draw so many images of each class; the others are for the test."""
    chosen = [rng.choice(np.flatnonzero(y == label), n_shots, replace=False) for label in np.unique(y)]
    return np.isin(np.arange(len(y)), np.concatenate(chosen))


def calibration_error(y, probabilities, classes, n_bins=10):
    """Compare confidence and accuracy among answers of like confidence."""
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
    features = featx.FeatureExtractor(l2_normalize=True).transform(X).astype(float)  # once: the draws are rows of it
    # PCA keeps all that so few images span: a penalty of L2 finds the same answers there, from fewer columns.
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
