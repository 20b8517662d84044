"""The embedded model: its weights are package data. `scripts/nano` made them."""
