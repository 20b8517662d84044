"""Plan → records."""
