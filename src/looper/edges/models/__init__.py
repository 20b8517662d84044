"""Models that answer: servers, local inference, scripts."""
