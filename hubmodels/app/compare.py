"""Two pictures side by side, or one over the other with a handle that also keys can move; as HTML of its own.

Pictures travel inside of the answer: no file is written that another visitor could come across.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

from PIL import Image

JPEG_QUALITY = 88
# The handle's place is kept on the document, so that it stays when a new answer replaces the pictures.
_MOVE = "document.documentElement.style.setProperty('--cut', this.value + '%')"
_KEEP = (
    "this.parentElement.querySelector('input').value = "
    "parseFloat(document.documentElement.style.getPropertyValue('--cut') || '50')"
)
_FULL = (
    "document.fullscreenElement ? document.exitFullscreen() : this.closest('figure').requestFullscreen().catch(() => 0)"
)


@dataclass(frozen=True)
class Side:
    """A picture with its caption and what it shows, for those who cannot see it."""

    picture: Image.Image
    caption: str
    alt: str


def compare_html(left: Side, right: Side, *, layout: str) -> str:
    """Both sides in a figure; `layout` is `slider` or `two-up`."""
    width, height = left.picture.size
    handle = (
        f'<input type="range" class="cut" min="0" max="100" value="50" aria-label="Place of the dividing line, percent"'
        f' oninput="{_MOVE}"><span class="line" aria-hidden="true"></span>'
    )
    return (
        f'<figure class="pair {layout}"><div class="stage" style="--ratio:{width / height:.4f}">'
        f"{_image(right, 'right')}{_image(left, 'left', _KEEP if layout == 'slider' else '')}"
        f"{handle if layout == 'slider' else ''}</div>"
        f"<figcaption><span>{html.escape(left.caption)}</span>"
        f'<button type="button" class="full" onclick="{_FULL}"><span class="enter">Full screen</span>'
        f'<span class="leave">Leave full screen</span></button>'
        f"<span>{html.escape(right.caption)}</span></figcaption></figure>"
    )


def _image(side: Side, place: str, onload: str = "") -> str:
    event = f' onload="{onload}"' if onload else ""
    return (
        f'<img class="{place}" src="{data_url(side.picture)}" alt="{html.escape(side.alt, quote=True)}" '
        f'draggable="false"{event}>'
    )


def data_url(picture: Image.Image) -> str:
    """The picture as a data: address: PNG for label maps, whose flat colours JPEG would smear, else JPEG."""
    file = io.BytesIO()
    if picture.mode == "P":
        picture.save(file, "PNG", compress_level=1)
    else:
        picture.save(file, "JPEG", quality=JPEG_QUALITY)
    kind = "png" if picture.mode == "P" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
