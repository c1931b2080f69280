"""What a person sees of a run while it goes on, on a terminal and in a notebook."""
