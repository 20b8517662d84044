"""The embedded suite: small generated repositories whose conventions can be learned from experience only."""
