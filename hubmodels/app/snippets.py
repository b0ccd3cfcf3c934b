"""What is on the page as code: Python, a command, and calls of the page's own API."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from typing import Any

from hubmodels.refine import Refinement

PHOTO = "photo.jpg"  # a visitor's own file name is not repeated
_LOGIN = """curl -sSf -o /dev/null -c cookies.txt "${SERVER%/gradio_api}/login" \\
    --data-urlencode username='USER' --data-urlencode password='PASSWORD'
"""


def python(
    model: str, settings: Refinement, *, absent: Collection[str] = (), opacity: int = 55, runtime: str = "torch"
) -> str:
    """A script that writes the labels and the overlay.

    Args:
        model: its name.
        settings: post-processing.
        absent: labels that the photo does not show.
        opacity: of the overlay, percent.
        runtime: what runs the model here, "torch" or "onnx". Probabilities of the two differ by up to 1e-3, so that the
            script asks for the same one, or else ties might fall to another label; "auto" lets it run everywhere.
    """
    load = repr(model) if runtime == "torch" else f"{model!r}, runtime='auto'"
    arguments = "".join(f"\n    {name}={value!r}," for name, value in settings.changes().items())
    arguments += "\n" if arguments else ""
    left_out = f", absent={list(absent)!r}" if absent else ""
    return f"""import hubmodels

model = hubmodels.load({load})
settings = hubmodels.Refinement({arguments})
seg = model.predict({PHOTO!r}, refinement=settings{left_out})
seg.save("labels.png")
seg.overlay(opacity={opacity / 100:g}).save("overlay.jpg")
"""


def command(model: str, settings: Refinement, *, absent: Collection[str] = ()) -> str:
    """A call of the `hubmodels` command; it writes out/photo_mask.png and out/photo_overlay.jpg."""
    options = [f"--{name.replace('_', '-')} {value}" for name, value in settings.changes().items()]
    options += [f"--absent {shlex.quote(','.join(absent))}"] if absent else []
    return " ".join([f"hubmodels label {PHOTO}", f"--model {shlex.quote(model)}", *options, "--out out"])


def client(url: str, model: str, settings: Refinement, *, absent: Collection[str] = (), login: bool = False) -> str:
    """A script that asks the page itself, by gradio_client.

    Args:
        url: address of the page, without a slash at its end.
        model: its name.
        settings: post-processing.
        absent: labels that the photo does not show.
        login: whether the page lets in only who logs in; the script then has a place for user and password.
    """
    auth = "auth=('USER', 'PASSWORD'), " if login else ""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in _asked(settings, absent).items())
    return f"""from gradio_client import Client, handle_file

client = Client({url + "/"!r}, {auth}analytics_enabled=False)
mask, overlay, report = client.predict(
    photo=handle_file({PHOTO!r}),
    model={model!r},
{arguments}    api_name="/segment",
)
print(mask, report["areas"])
"""


def curl(url: str, model: str, settings: Refinement, *, absent: Collection[str] = (), login: bool = False) -> str:
    """The same in a shell: upload, ask, and wait for the answer, whose files are then at the addresses it names."""
    asked = json.dumps({"model": model, **_asked(settings, absent)})
    jar = " -b cookies.txt" if login else ""
    return f"""SERVER={shlex.quote(url)}/gradio_api
{_LOGIN if login else ""}FILE=$(curl -sS{jar} -F files=@{PHOTO} "$SERVER/upload" | sed 's/^\\["//; s/"\\]$//')
PHOTO='{{"photo": {{"path": "'"$FILE"'", "meta": {{"_type": "gradio.FileData"}}}}, '
EVENT=$(curl -sS{jar} -H 'Content-Type: application/json' -d "$PHOTO"{shlex.quote(asked[1:])} \\
    "$SERVER/call/v2/segment" | sed 's/.*"event_id": *"\\([^"]*\\)".*/\\1/')
curl -sS{jar} -N "$SERVER/call/segment/$EVENT"
"""


def _asked(settings: Refinement, absent: Collection[str]) -> dict[str, Any]:
    """What the API is told beside photo and model: all that is not at its default."""
    return {**({"absent": list(absent)} if absent else {}), **settings.changes()}
