"""Recording: measures every checkpoint of a run into a history."""
