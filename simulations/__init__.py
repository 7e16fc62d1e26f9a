"""An imagined fleet that answers as the real one does, and the laboratory around it."""
