"""Marks of tests that export networks: the oldest PyTorch that loads and trains them cannot."""

from __future__ import annotations

import pytest

from hubmodels.model_export import can_trace, missing_packages

needs_tracing = pytest.mark.skipif(not can_trace(), reason="this PyTorch traces no network for any size")
needs_onnx = pytest.mark.skipif(not can_trace() or bool(missing_packages()), reason="the extra onnx is not installed")
