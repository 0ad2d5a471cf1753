"""Ways to reach a model: one file each, called as the KIND of KIND:LOCATION."""
