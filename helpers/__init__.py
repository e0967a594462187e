"""What stands beside the three scripts."""
