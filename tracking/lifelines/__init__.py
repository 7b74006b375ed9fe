"""Lifelines: what becomes of each role and component through training, and what happens to them."""
