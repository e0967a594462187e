"""The bonus: everything that raises the test accuracy from 85 % to over 93 %.

- `ngrams`, `ngram_values` and `negation`: the channels of a token. These are sentiment values of the n-grams that end
  there, and sums of such values over the text. The values are learned from the labels of the training reviews.
- `regions`: embeddings of the words around each token, learned by predicting nearby words.
- `short_texts`: excerpts, sentences and negated sentences to train on, in addition to whole reviews.
- `network`: the network that reads these inputs.
- `pipeline`: the settings, and how the parts fit together.
"""

from helpers.bonus.pipeline import PRESETS, BonusPipeline, BonusSettings

__all__ = ["PRESETS", "BonusPipeline", "BonusSettings"]
