"""Source data → tasks; patch → verdict."""
