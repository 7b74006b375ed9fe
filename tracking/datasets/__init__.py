"""Datasets: histories whose truth is known."""
