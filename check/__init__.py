"""Check the two layers of any solution of the exercise: python -m check path/to/models.py"""
