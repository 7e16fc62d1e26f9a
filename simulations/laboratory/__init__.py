"""Policies compared: who takes part, the bounds beside them, and what came of it."""
