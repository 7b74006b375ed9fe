"""Comparison: what moves formation between runs."""
