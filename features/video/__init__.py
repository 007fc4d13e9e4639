"""Video: keyframes and optical flow."""
