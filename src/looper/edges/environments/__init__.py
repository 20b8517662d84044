"""Interpreters and packages that tasks run on."""
