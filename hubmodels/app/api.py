"""What programs call: the page's API of two functions, values in, files and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubmodels.app import downloads
from hubmodels.app.guard import Guard, refusal
from hubmodels.app.studio import Studio
from hubmodels.app.views import View
from hubmodels.entries import find_entry
from hubmodels.refine import Refinement


class Api:
    """The functions, bound to what is served. Unlike the page they clamp nothing: they say what is wrong."""

    def __init__(self, studio: Studio, guard: Guard) -> None:
        self.studio, self._guard = studio, guard

    def segment(
        self, photo: Any = None, model: str = "", *, absent: Any = (), **settings: Any
    ) -> tuple[str, str, dict[str, Any]]:
        """Label every pixel of a photo.

        Returns:
            An indexed PNG whose values are label ids, the overlay as JPEG, which is smaller than the photo where that
            is longer than a JPEG can be, and a report: model, labels, the share of each in the photo, those that were
            said to be absent, and all settings.
        """
        if photo is None:  # left out: were there no default, Gradio would answer that with status 500
            raise refusal("photo is missing: upload one and pass its path")

        def label(path: Path) -> tuple[str, str, dict[str, Any]]:
            asked = Refinement(**settings)
            self.studio.model(model)
            entry = find_entry(model)
            asked.check_for(model, len(entry.labels), has_region_classifier=entry.regions is not None)
            seg = self.studio.whole(path, model, asked, absent=absent or ())
            report = {
                "model": model,
                "labels": list(seg.label_set.names),
                "areas": seg.areas(),
                "absent": list(absent or ()),
                "settings": asked.to_dict(),
            }
            mask, overlay = downloads.labels_file(seg), downloads.overlay_file(seg, View())
            return self._guard.file(*mask), self._guard.file(*overlay), report

        return self._guard.answer(photo, label)

    def models(self) -> list[dict[str, Any]]:
        """The models served here: name, task, labels, size and scores."""
        return [
            {
                "name": name,
                "task": (entry := find_entry(name)).task,
                "labels": list(entry.labels.names),
                "size_bytes": entry.size_bytes,
                "parameters": entry.parameters,
                "seconds": self.studio.speeds.get(name),
                "metrics": dict(entry.metrics),
            }
            for name in self.studio.models_of()
        ]
