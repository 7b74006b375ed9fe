"""Experiments: make more runs, by branching, by sweeping and by search."""
