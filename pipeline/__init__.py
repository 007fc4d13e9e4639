"""From catalog to snapshot, and back out to training. The only code that touches files."""
