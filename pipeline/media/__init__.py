"""Files in, media values out: images, audio, video and text with their true times."""
