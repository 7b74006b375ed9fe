"""Execution: who does units of work, in one process, several, or on the machines of a cluster."""
