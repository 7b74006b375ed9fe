"""Forecasting: formation told early, judged on runs that were left out."""
