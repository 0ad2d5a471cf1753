"""The stages of an alignment: records in, records out; no stage knows what kind of model it asks."""
