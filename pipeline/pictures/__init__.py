"""Pictures of what was computed: arrays in, PNG bytes out."""
