"""Results: everything found, as tables, sentences and files that other tools read."""
