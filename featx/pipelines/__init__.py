"""Find the extractors, columns and outputs of fitted estimators, and split a pipeline into extractor and head."""

from featx.pipelines.columns import (
    find_columns,
    find_encoders,
    find_optional,
    find_text_encoders,
    find_vectorizers,
    make_frame_of_rows,
    name_columns,
)
from featx.pipelines.extractors import find_embedding, find_extractors, walk
from featx.pipelines.outputs import count_outputs, find_several
from featx.pipelines.splitting import FeatureFrames, split_pipeline

__all__ = [
    "FeatureFrames",
    "count_outputs",
    "find_columns",
    "find_embedding",
    "find_encoders",
    "find_extractors",
    "find_optional",
    "find_several",
    "find_text_encoders",
    "find_vectorizers",
    "make_frame_of_rows",
    "name_columns",
    "split_pipeline",
    "walk",
]
