"""GPT-2: minGPT, the weights and tokenizer, and the end of a sentence."""
