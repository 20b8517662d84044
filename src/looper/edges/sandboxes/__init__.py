"""Ways to run a command that cannot do harm."""
