"""From a trained network to answers about any text."""
