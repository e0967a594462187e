"""Check solutions and whole submissions of the exercise: python -m check PATH..."""
