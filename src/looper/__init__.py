"""Looper: does a coding agent become more capable from its own experience?"""

__version__ = "0.1.0"
