"""Pure judgement: no clock, no I/O, no randomness. What is known comes in, what is decided comes out."""
