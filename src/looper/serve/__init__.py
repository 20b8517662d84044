"""The second door: what is behind `looper serve`, from the socket to the page."""
