"""Influence: which training data moved a formation, and by how many steps."""
