"""Follow circuits through training: when each component forms, and what takes over from what."""
