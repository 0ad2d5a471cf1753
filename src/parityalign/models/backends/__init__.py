"""Ways to reach a model: one module each, named like the KIND of KIND:LOCATION."""
