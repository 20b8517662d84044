"""Verdicts → figures; pure."""
