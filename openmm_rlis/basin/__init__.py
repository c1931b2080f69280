"""The unbiased simulation in region A: exits, their rate, and the inner region that walks start from."""
