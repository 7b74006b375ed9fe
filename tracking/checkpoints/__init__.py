"""Checkpoints: where a series of them lies, in which form, and whether it is what it claims to be."""
