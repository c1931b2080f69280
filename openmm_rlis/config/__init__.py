"""The configuration file: its models, and the Problem that they describe."""
