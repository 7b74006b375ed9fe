"""Interventions: what may be changed in a training, and how that is done to a model."""
