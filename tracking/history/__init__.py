"""Histories: what was measured at every step, the files it lies in, and tables made elsewhere."""
