"""Experience → examples for a trainer."""
