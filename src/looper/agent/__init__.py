"""Task → trajectory. All that a self-modifying agent may change lives here."""
