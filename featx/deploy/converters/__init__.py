"""Convert scikit-learn estimators to ONNX operators, one file per family."""
