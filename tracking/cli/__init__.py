"""Command line: the verbs of `formation`."""
