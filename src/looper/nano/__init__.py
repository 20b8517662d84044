"""The embedded model: corpus, tokenizer, build; its weights are package data."""
