"""Converters of scikit-learn estimators; each module ends in the table of its estimators."""
