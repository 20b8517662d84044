"""Experience → text for the prompt."""
