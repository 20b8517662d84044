"""Fresh working trees."""
