"""The jobs of this repository, one module each, and the kit they share."""
