"""Candidates for the agent's own source: proposed, judged, promoted or kept aside."""
