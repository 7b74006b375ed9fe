"""Find the circuit behind a behaviour of one transformer, and judge it."""
