"""Records → eyes; read-only."""
