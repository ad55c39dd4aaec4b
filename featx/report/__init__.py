"""What a person sees of a fitted pipeline: facts in `summary`, pictures in `drawing`."""
