"""Audio: resampling, denoising and MFCCs."""
