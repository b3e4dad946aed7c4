"""`mayfly doctor`: tries every part that a run needs, all at once, and has a remedy for each failure."""
