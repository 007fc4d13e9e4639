"""Images: cleaning and CNN vectors."""
