"""Servers on loopback that speak real protocols."""
