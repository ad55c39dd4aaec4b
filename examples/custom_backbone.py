"""Make a backbone from your own network, and compare it with the bundled one.

python examples/custom_backbone.py [FOLDER]    (one sub-folder per class; default: pieces of clothing)

The network here is a bank of Gabor filters, which needs no training: it measures the strength of
edges of eight directions and three widths at each place. Any ONNX file with one image as its input
works the same way. `featx backbones wrap` does this from the command line.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_files
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.images.preprocess import Preprocess
from featx.recipes import wrap_backbone

SIDE = 64
HALF = 8  # half the side of a filter


def gabor_filters():
    """Return even and odd waves of three lengths in eight directions, shape (48, 3, 17, 17)."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    filters = []
    for length in (4, 6, 9):
        for angle in np.arange(8) * np.pi / 8:
            phase = 2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle))
            window = np.exp(-(x**2 + y**2) / (2 * (length / 2) ** 2))
            for wave in (np.cos(phase), np.sin(phase)):
                wave = window * (wave - (window * wave).sum() / window.sum())  # blind to brightness alone
                filters.append(np.repeat(wave[None] / np.linalg.norm(wave) / 3, 3, axis=0))
    return np.array(filters, np.float32)


def write_network(path):
    """Write a plain ONNX network: a float image in, a row of 24 numbers out."""
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["waves"], pads=[HALF] * 4, strides=[2, 2]),
        helper.make_node("Mul", ["waves", "waves"], ["squares"]),
        # Even plus odd: the strength does not depend on the phase of the edge.
        helper.make_node("Conv", ["squares", "pairs"], ["power"], group=24),
        helper.make_node("Sqrt", ["power"], ["strength"]),
        helper.make_node("GlobalAveragePool", ["strength"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["row"]),
    ]
    weights = {"filters": gabor_filters(), "pairs": np.ones((24, 2, 1, 1), np.float32)}
    graph = helper.make_graph(
        nodes,
        "gabor",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def main():
    """Build, wrap, and cross-validate the same head on both."""
    X, y = featx.samples.load_fashion_mnist()
    if sys.argv[1:]:
        files = load_files(sys.argv[1])
        X, y = files.data, files.target
    with tempfile.TemporaryDirectory() as folder:
        network, backbone = Path(folder, "network.onnx"), Path(folder, "gabor.onnx")
        write_network(network)
        # How to prepare its images; mean and deviation become part of the graph.
        preprocess = Preprocess(SIDE, SIDE, SIDE, "bilinear", mean=(127.5,) * 3, std=(127.5,) * 3)
        conversion = wrap_backbone(network, backbone, name="gabor", preprocess=preprocess, features="strength")
        print(f"wrapped: {conversion.differences[0]} to the original network")
        extractors = {
            "gabor, averaged": featx.FeatureExtractor(backbone),
            "gabor, by place": featx.FeatureExtractor(backbone, pooling="spatial_pyramid"),
            "efficientnet_lite0": featx.FeatureExtractor(),
        }
        head = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 11)))
        for name, extractor in extractors.items():
            features = extractor.transform(X)  # nothing is fitted, so it may come before the folds
            scores = cross_val_score(head, features, y, cv=5)
            print(f"{name:18}  {features.shape[1]:5} features  accuracy {scores.mean():.3f}")


if __name__ == "__main__":
    main()
