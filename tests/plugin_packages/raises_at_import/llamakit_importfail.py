"""Fails as soon as it is imported."""

RATIO = 1 / 0
