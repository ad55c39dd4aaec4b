"""Export a fitted pipeline as one ONNX file and verify that it gives the same predictions."""

from featx.deploy.export import ExportResult, export
from featx.deploy.parity import Parity

__all__ = ["ExportResult", "Parity", "export"]
