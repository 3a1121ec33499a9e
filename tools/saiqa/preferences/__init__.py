"""What people prefer, as pairs, and the weights of the overall score that follow."""
