"""From exits of A to a frozen value function and the plan of production."""
