"""Text to features: pretrained text encoders as scikit-learn transformers."""

from featx.text.extractor import TextExtractor

__all__ = ["TextExtractor"]
