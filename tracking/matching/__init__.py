"""Matching: which component of one snapshot is which of another."""
