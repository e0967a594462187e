"""The data: from the IMDB archive to batches of token ids."""
