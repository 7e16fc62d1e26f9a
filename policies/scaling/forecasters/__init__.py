"""Ways of seeing the demand to come; each is a pure function of the folded past."""
