"""Formation: when each role and component forms, and how exactly that can be told."""
