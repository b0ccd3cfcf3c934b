"""The page: photos in, labels to tune, compare and take away. `hubmodels.app.server` serves it.

Gradio and huggingface_hub read these variables when they are imported, and without them report to their makers; so
they are set here, before any part of the page can import either.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
