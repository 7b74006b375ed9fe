"""Viewer: the page, in a browser and in a notebook."""
