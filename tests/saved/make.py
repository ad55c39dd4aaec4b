"""Save a small pipeline and its answers, to be kept as a file of this version.

python tests/saved/make.py NAME

writes NAME.featx and NAME.json beside this script. Run it at each release, under the featx and the
scikit-learn that NAME names; files that are here already are never made again.
"""

import json
import sys
from pathlib import Path

from sklearn.pipeline import make_pipeline

import featx


def main(name):
    path = Path(__file__).with_name(f"{name}.featx")
    if path.exists():
        raise SystemExit(f"{path.name} is here already, and is kept as it is")
    X, y = featx.samples.load_fashion_mnist("test")
    pipeline = make_pipeline(featx.FeatureExtractor(layer="stem"), featx.make_head())
    pipeline.fit(X[::5], y[::5])
    featx.save(pipeline, path, info={"task": "classification"})
    answers = {"predict": pipeline.predict(X[1:9]).tolist(), "predict_proba": pipeline.predict_proba(X[1:9]).tolist()}
    path.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
