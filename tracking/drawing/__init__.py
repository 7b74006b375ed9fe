"""Drawing: the figures."""
