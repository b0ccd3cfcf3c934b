"""Shipped weights (safetensors, float16) and manifest.json, what commands measured of them."""
