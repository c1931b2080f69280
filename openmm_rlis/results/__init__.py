"""What a run directory says: rounds as tables, the result, and both directions."""
