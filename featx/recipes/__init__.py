"""Make backbone files: needs the extra ``export`` (torch and timm), which nothing else in featx does."""
