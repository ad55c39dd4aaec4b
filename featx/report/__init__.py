"""What a person sees of a fitted pipeline: facts in `summary`, images in `drawing`."""
