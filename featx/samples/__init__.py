"""Small sets of images for the demo, the examples and the tests; none is downloaded."""

from featx.samples.fashion_mnist import extract_fashion_mnist, load_fashion_mnist
from featx.samples.sets import Sample, list_samples, write_sample

__all__ = ["Sample", "extract_fashion_mnist", "list_samples", "load_fashion_mnist", "write_sample"]
