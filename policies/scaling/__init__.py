"""How many replicas a target should have."""
