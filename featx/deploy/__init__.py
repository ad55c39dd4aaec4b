"""A fitted pipeline as one ONNX file that any ONNX Runtime runs, and that provably gives the same answers."""

from featx.deploy.export import ExportResult, export
from featx.deploy.parity import Parity

__all__ = ["ExportResult", "Parity", "export"]
