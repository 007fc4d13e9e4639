"""Text: cleaning and word vectors."""
