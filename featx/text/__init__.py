"""Text to features: pretrained text encoders as scikit-learn transformers, and their tokens as words."""

from featx.text.extractor import TextExtractor
from featx.text.words import TokenAnalyzer, make_words

__all__ = ["TextExtractor", "TokenAnalyzer", "make_words"]
