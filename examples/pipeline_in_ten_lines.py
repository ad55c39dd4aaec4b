"""Go from images to a tested classifier in ten lines, imports included.

python examples/pipeline_in_ten_lines.py

The images are 600 pieces of clothing that come with featx. For a folder of your own, with one
sub-folder per class: ``X, y = featx.load_folder(folder)``. Images may be paths, bytes, PIL images or
arrays.
"""

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx

X, y = featx.samples.load_fashion_mnist()
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
pipeline = make_pipeline(featx.FeatureExtractor(), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
pipeline.fit(X_train, y_train)
print(f"accuracy on {len(X_test)} of {len(X)} images, left out: {pipeline.score(X_test, y_test):.3f}")
